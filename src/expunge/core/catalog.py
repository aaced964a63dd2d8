"""Named TOML files of the package, listed by what they say of themselves: nothing that they configure is imported."""

from __future__ import annotations

from typing import Any

from expunge.core.errors import UserError, near
from expunge.core.plugins import ROOT
from expunge.core.toml import Tables, read_toml

RECIPES = ROOT / "recipes"
SUITES = ROOT / "evaluate" / "suites"
REPRODUCTIONS = ROOT / "reproductions"
SLOTS = ("forget", "retain", "combine", "localize", "edit")
"""The choices of a recipe."""
OPTIONAL = {"edit": "none"}
"""What a recipe chooses that does not name a slot."""


def recipes() -> list[dict[str, Any]]:
    """Name, one line, its choices and the paper of every shipped recipe."""
    return [
        {"name": name, "summary": table["summary"], **_choices(table), "paper": table["paper"]}
        for name, table in ((name, recipe(name)) for name in recipe_names())
    ]


def recipe_names() -> list[str]:
    """Names of the shipped recipes; files that begin with an underscore are parts of several."""
    return sorted(path.stem for path in RECIPES.glob("[!_]*.toml"))


def recipe(name: str) -> Tables:
    """The tables of a shipped recipe, with those of the recipes that it extends."""
    return extended(read_toml(RECIPES / f"{name}.toml"))


def extended(tables: Tables) -> Tables:
    """The tables of a recipe over those of the shipped recipes that it `extends`, a later one over an earlier one.

    Raises:
        UserError: it extends a recipe that is not there.
    """
    own = {key: value for key, value in tables.items() if key != "extends"}
    found: Tables = {}
    for base in tables.get("extends", ()):
        if not (RECIPES / f"{base}.toml").is_file():
            raise UserError(f"extends: no recipe '{base}'{near(str(base), recipe_names())}")
        found = _over(found, recipe(base))
    return _over(found, own)


def suites() -> list[dict[str, str]]:
    """Name, one line, variants and paper of every shipped suite."""
    return [
        {
            "name": name,
            "summary": table.get("summary", ""),
            "variants": " ".join(table.get("variants", ())),
            "paper": table.get("paper", ""),
        }
        for name, table in ((path.stem, read_toml(path)) for path in sorted(SUITES.glob("*.toml")))
    ]


def reproductions() -> list[dict[str, str]]:
    """Name, one line and paper of every shipped reproduction."""
    return [
        {"name": name, "summary": table["summary"], "paper": table["paper"]}
        for name, table in ((path.stem, reproduction(path.stem)) for path in sorted(REPRODUCTIONS.glob("*.toml")))
    ]


def reproduction(name: str) -> Tables:
    """The tables of a shipped reproduction, and those that it lacks from the one that it extends."""
    tables = read_toml(REPRODUCTIONS / f"{name}.toml")
    base = tables.pop("extends", None)
    return {**reproduction(base), **tables} if base else tables


def _over(low: Tables, high: Tables) -> Tables:
    """Tables of `high` over those of `low`; a slot that is filled otherwise inherits no options."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        if key in SLOTS:
            old, value = ({"name": one} if isinstance(one, str) else one for one in (old, value))
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = _over(old, value)
        else:
            merged[key] = value
    return merged


def _choices(table: Tables) -> dict[str, str]:
    fillers = {slot: table.get(slot, OPTIONAL.get(slot)) for slot in SLOTS}
    return {slot: filler["name"] if isinstance(filler, dict) else str(filler) for slot, filler in fillers.items()}
