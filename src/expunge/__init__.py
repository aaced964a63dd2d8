"""Expunge removes chosen knowledge from a language model, and shows whether it is really gone."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import expunge.evaluate

if TYPE_CHECKING:
    from expunge.api import Unlearned, evaluate, unlearn
    from expunge.core.errors import ExpungeError, UserError

__all__ = ["ExpungeError", "Unlearned", "UserError", "evaluate", "unlearn"]

_HOMES = {
    "ExpungeError": "expunge.core.errors",
    "Unlearned": "expunge.api",
    "UserError": "expunge.core.errors",
    "unlearn": "expunge.api",
}
"""Where each public name lives; importing the package itself imports none of it, and no torch."""


class _Evaluate(ModuleType):
    """The package `expunge.evaluate`, which can be called: it would hide the public function of its name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from expunge.api import evaluate

        return evaluate(*arguments, **options)


sys.modules["expunge.evaluate"].__class__ = _Evaluate


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'expunge' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
