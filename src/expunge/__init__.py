"""Expunge removes chosen knowledge from a language model, and shows whether it is really gone."""

TYPE_CHECKING = False  # nothing is imported here: `python -m` still finds modules in the working folder
if TYPE_CHECKING:
    from typing import Any

    from expunge.api import Unlearned, measure, unlearn
    from expunge.core.errors import ExpungeError, UserError
    from expunge.evaluate.config import EvaluateConfig

__all__ = ["EvaluateConfig", "ExpungeError", "Unlearned", "UserError", "measure", "unlearn"]

_HOMES = {
    "EvaluateConfig": "expunge.evaluate.config",
    "ExpungeError": "expunge.core.errors",
    "Unlearned": "expunge.api",
    "UserError": "expunge.core.errors",
    "measure": "expunge.api",
    "unlearn": "expunge.api",
}
"""Where each public name lives; importing the package itself imports none of it, and no torch."""


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module 'expunge' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
