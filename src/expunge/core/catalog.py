"""Named TOML files of the package, listed by their own descriptions: nothing that they configure is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expunge.core.errors import UserError, near
from expunge.core.plugins import ROOT
from expunge.core.schema import SLOTS
from expunge.core.toml import Tables, merge, read_toml

RECIPES = ROOT / "recipes"
SUITES = ROOT / "evaluate" / "suites"
REPRODUCTIONS = ROOT / "reproductions"
SWEEPS = ROOT / "sweeps"
OPTIONAL = {"edit": "none"}
"""Plug-ins of the slots that a recipe need not name."""


def names(folder: Path) -> list[str]:
    """Names of the files in a folder; those that begin with an underscore are parts of others."""
    return sorted(path.stem for path in folder.glob("[!_]*.toml"))


def find(folder: Path, name: str, what: str) -> Path:
    """The file of a shipped name, or the user's own by its path, which ends in `.toml`.

    Args:
        folder: of the shipped files.
        name: name or path.
        what: what is named, for the message.

    Raises:
        UserError: no such name.
    """
    if name.endswith(".toml"):
        return Path(name)
    if name not in names(folder):
        raise UserError(f"{what}: no '{name}'{near(name, names(folder))}")
    return folder / f"{name}.toml"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return names(RECIPES)


def recipe(name: str) -> Tables:
    """The tables of a recipe over those of the shipped recipes that it `extends`, later ones over earlier ones.

    Raises:
        UserError: no such recipe, or it extends one that does not exist.
    """
    return _extended(read_toml(find(RECIPES, name, "recipe")))


def _extended(tables: Tables) -> Tables:
    found: Tables = {}
    for base in tables.pop("extends", ()):
        file = RECIPES / f"{base}.toml"
        if not file.is_file():
            raise UserError(f"extends: no recipe '{base}'{near(str(base), recipe_names())}")
        found = merge(found, _extended(read_toml(file)))
    return merge(found, tables)


def reproduction(name: str) -> Tables:
    """The tables of a reproduction; those that it lacks are taken from the shipped one that it `extends`.

    Raises:
        UserError: no such reproduction, or it extends one that does not exist.
    """
    tables = read_toml(find(REPRODUCTIONS, name, "reproduce"))
    base = tables.pop("extends", None)
    if base is None:
        return tables
    if base not in names(REPRODUCTIONS):
        raise UserError(f"{name}: extends: no reproduction '{base}'{near(str(base), names(REPRODUCTIONS))}")
    return {**reproduction(base), **tables}


def recipes() -> list[dict[str, Any]]:
    """Name, summary, plug-ins and paper of every shipped recipe."""
    tables = {name: recipe(name) for name in recipe_names()}
    return [
        {"name": name, "summary": table["summary"], **_plugins(table), "paper": table["paper"]}
        for name, table in tables.items()
    ]


def suites() -> list[dict[str, str]]:
    """Name, summary, variants and paper of every shipped suite."""
    tables = {name: read_toml(SUITES / f"{name}.toml") for name in names(SUITES)}
    return [
        {
            "name": name,
            "summary": table.get("summary", ""),
            "variants": " ".join(table.get("variants", ())),
            "paper": table.get("paper", ""),
        }
        for name, table in tables.items()
    ]


def reproductions() -> list[dict[str, str]]:
    """Name, summary and paper of every shipped reproduction."""
    tables = {name: reproduction(name) for name in names(REPRODUCTIONS)}
    return [{"name": name, "summary": table["summary"], "paper": table["paper"]} for name, table in tables.items()]


def _plugins(table: Tables) -> dict[str, str]:
    chosen = {slot: table.get(slot, OPTIONAL.get(slot)) for slot in SLOTS}
    return {slot: one["name"] if isinstance(one, dict) else str(one) for slot, one in chosen.items()}
