"""OpenUnlearning's names of metrics, accepted wherever ours are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.toml import Tables, read_toml

_FILE = plugins.ROOT / "evaluate" / "openunlearning.toml"
_FOLDER = "evaluate/metrics"


class Named(NamedTuple):
    """A metric, and the role of the rows if OpenUnlearning's name includes it."""

    metric: str
    role: str | None = None
    stored: str = ""
    """Metric whose row values OpenUnlearning's file holds."""
    field: str = ""
    """Key of a row's value there."""


def named(name: str) -> Named:
    """The metric of a name, which may be OpenUnlearning's."""
    return Named(name) if name in plugins.names(_FOLDER) else openunlearning().get(name, Named(name))


def named_set_metric(name: str) -> str:
    """The same for metrics over many rows."""
    return str(_tables()["set_metrics"].get(name, name))


def for_role(names: Sequence[str], role: str) -> tuple[str, ...]:
    """The metrics of a list of names that apply to rows of a role."""
    meant = (named(name) for name in names)
    return tuple(dict.fromkeys(one.metric for one in meant if one.role in (None, role)))


def check_role(names: Iterable[str], role: str, where: str) -> None:
    """Refuse a name for rows of another role.

    Raises:
        UserError: e.g. `forget_Q_A_Prob` for a retain set.
    """
    for name in names:
        if named(name).role not in (None, role):
            raise UserError(f"{where}: '{name}' is of {named(name).role} rows, and these are {role}")


@cache
def openunlearning() -> dict[str, Named]:
    """Every name in OpenUnlearning's files that has one number per row."""
    tables = _tables()
    found = {}
    for prefix, role in tables["roles"].items():
        for suffix, one in tables["metrics"].items():
            found[f"{prefix}_{suffix}"] = Named(one["metric"], role, one.get("stored", one["metric"]), one["field"])
    for name, suffix in tables["forget"].items():
        found[name] = found[f"forget_{suffix}"]
    return found


@cache
def _tables() -> Tables:
    return read_toml(_FILE)
