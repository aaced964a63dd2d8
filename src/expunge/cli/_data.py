"""`--data SPLIT=DATA`, as several commands take it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from expunge.core.errors import UserError, near


def named_data(items: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Split -> data; an item without a split is the forget split.

    Raises:
        UserError: a split that the command does not know or that is named twice, or one without data.
    """
    splits: dict[str, str] = {}
    for item in items:
        name, equals, spec = item.partition("=")
        if not equals:
            name, spec = "forget", item
        if name not in known:
            raise UserError(f"--data {item}: no split '{name}'{near(name, known)}")
        if not spec.strip():
            raise UserError(f"--data {item}: names no data; write it as {name}=DATA")
        if name in splits:
            raise UserError(f"--data {item}: {name} is named twice; one data set each, or a run file with a list")
        splits[name] = spec
    return splits
