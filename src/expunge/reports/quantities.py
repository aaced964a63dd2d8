"""Numbers that tables show and claims are about: read from a run's record, or computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from expunge.core.records import Frozen


class RecordQuantity(Frozen):
    """One number of a run; exactly one but `floor`."""

    kept: tuple[str, ...] = Field((), description="`split.metric`: mean over these of the score after over that before")
    removed: str | None = Field(None, description="`split.metric`: knowledge removed, from 0 before to 1 at `floor`")
    floor: float = Field(0.0, description="With removed: the score of a model that never knew, or of chance")
    over: tuple[str, str] | None = Field(None, description="Dotted paths of two numbers; the first over the second")
    got: str | None = Field(
        None, description="`ATTACK` or `ATTACK.VARIANT`: knowledge that it got; of an attack, the most of each row"
    )
    recovered: str | None = Field(None, description="The same as a share of what unlearning took away")
    untouched: str | None = Field(None, description="The same of the original model, where the attack harms any model")

    @model_validator(mode="after")
    def _one(self) -> RecordQuantity:
        others = (self.removed, self.over, self.got, self.recovered, self.untouched)
        if [bool(self.kept), *(other is not None for other in others)].count(True) != 1:
            raise ValueError("give one of kept, removed, over, got, recovered and untouched")
        return self


Column = str | RecordQuantity
"""A dotted path into a record, or a number to be worked out."""


def cell(record: Any, column: Column) -> Any:
    """A column's content for a run: a number, a score or aggregate, or None."""
    if isinstance(column, str):
        return at_path(record, column)
    if column.over is not None:
        first, second = (number_at(record, path) for path in column.over)
        return first / second if first is not None and second else None
    if column.removed is not None:
        before, after = (number_at(record, f"{stage}.{column.removed}") for stage in ("before", "after"))
        return None if before is None or after is None else knowledge_removed(before, after, column.floor)
    fields = {"knowledge": column.got, "recovered": column.recovered, "controls.original": column.untouched}
    for field, path in fields.items():
        if path is not None:
            return attack_score(record, path, field)
    pairs = [tuple(number_at(record, f"{stage}.{name}") for stage in ("before", "after")) for name in column.kept]
    shares = [after / before for before, after in pairs if before and after is not None]
    return sum(shares) / len(shares) if len(shares) == len(pairs) else None


def value_of(record: Any, column: Column) -> float | None:
    """The bare number in a cell."""
    return bare(cell(record, column))


def number_at(record: Any, path: str) -> float | None:
    """The bare number at a path."""
    return bare(at_path(record, path))


def attack_score(record: Any, path: str, field: str) -> Any:
    """A score of an attack, or of one of its variants; None where it was not carried out."""
    name, _, variant = path.partition(".")
    attacks = at_path(record, "robustness.attacks") or []
    found = next((attack for attack in attacks if at_path(attack, "name") == name), None)
    scores = [score for score in at_path(found, "variants") or [] if variant in ("", at_path(score, "variant"))]
    if not variant and at_path(found, "worst"):
        scores = [at_path(found, "worst")]
    return at_path(scores[0], field) if len(scores) == 1 else None


def knowledge_removed(before: float, after: float, floor: float) -> float | None:
    """KRD, `(before - after) / (before - floor)`, from the name and "close to 1" in arXiv:2602.19275.

    A reconstruction. 0: nothing is removed; 1: as little is left as in a model that never knew; above 1: less than
    that. None where nothing was known before, so that nothing could be removed.
    """
    return (before - after) / (before - floor) if before > floor else None


def at_path(record: Any, path: str) -> Any:
    """The entry at a dotted path of a record, of tables or of lists; None if there is none.

    -1 is the last entry of a list, and `1:` or `-3:` the mean of the numbers that the rest of the path leads to from
    each entry of that slice.
    """
    head, _, rest = path.partition(".")
    if ":" in head:
        if not isinstance(record, Sequence):
            return None
        start, stop = (int(end) if end else None for end in head.split(":"))
        found = [bare(at_path(entry, rest)) for entry in record[start:stop]]
        numbers = [number for number in found if number is not None]
        return sum(numbers) / len(numbers) if numbers else None
    try:
        if isinstance(record, Sequence):
            entry = record[int(head)]
        else:
            entry = record[head] if isinstance(record, Mapping) else getattr(record, head)
    except (KeyError, IndexError, ValueError, AttributeError):
        return None
    return at_path(entry, rest) if rest else entry


def bare(found: Any) -> float | None:
    """The finite number that an entry is, or holds as its `value`."""
    value = found if isinstance(found, int | float) else at_path(found, "value")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
