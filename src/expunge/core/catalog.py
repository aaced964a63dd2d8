"""Named TOML files of the package, listed by what they say of themselves: nothing that they configure is imported."""

from __future__ import annotations

from typing import Any

from expunge.core.plugins import ROOT
from expunge.core.toml import Tables, read_toml

RECIPES = ROOT / "recipes"
SUITES = ROOT / "evaluate" / "suites"
REPRODUCTIONS = ROOT / "reproductions"
SLOTS = ("forget", "retain", "combine", "localize")
"""The four choices of a recipe."""


def recipes() -> list[dict[str, Any]]:
    """Name, one line, the four choices and the paper of every shipped recipe."""
    return [
        {"name": name, "summary": table["summary"], **_choices(table), "paper": table["paper"]}
        for name, table in ((path.stem, read_toml(path)) for path in sorted(RECIPES.glob("*.toml")))
    ]


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


def _choices(table: Tables) -> dict[str, str]:
    return {slot: table[slot] if isinstance(table[slot], str) else table[slot]["name"] for slot in SLOTS}
