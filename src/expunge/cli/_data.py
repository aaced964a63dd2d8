"""`--data SPLIT=DATA`, as several commands take it."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.errors import UserError, near


def named_data(items: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Split -> data; an item without a split is the forget split.

    Raises:
        UserError: a split that the command does not know.
    """
    splits: dict[str, str] = {}
    for item in items:
        name, equals, spec = item.partition("=")
        if not equals:
            name, spec = "forget", item
        if name not in known:
            raise UserError(f"--data {item}: no split '{name}'{near(name, known)}")
        splits[name] = spec
    return splits
