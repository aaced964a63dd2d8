"""Summary of how a data set was read, for users who want to check it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expunge.core.progress import Progress
from expunge.data.example import Example
from expunge.data.values import plain

_SHOWN = 60
"""Characters of a value on a terminal."""


@dataclass(frozen=True)
class DataSummary:
    """How the rows of one file, folder, hub or shipped set were read."""

    source: str
    rows: int
    kinds: Mapping[str, int]
    """questions, conversations, prompts, documents -> rows."""
    first: Example
    used: Mapping[str, str]
    """Our field -> the column that it came from; `first` may lack some of them."""
    unused: tuple[str, ...] = ()
    """Columns that were not read."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What kind of row was left out -> how many."""
    layouts: tuple[str, ...] = ()
    """Published layouts that rows have, by file name in `data/shapes`."""
    encoding: str | None = None
    separator: str | None = None
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line about all rows; it quotes none."""
        parts = [", ".join(f"{count} {kind}" for kind, count in self.kinds.items())]
        parts += [f"{count} {reason} left out" for reason, count in self.left_out.items()]
        if self.layouts:
            parts.append(f"read as {', '.join(self.layouts)}")
        if renamed := {ours: theirs for ours, theirs in self.used.items() if ours != theirs}:
            parts.append(", ".join(f"{ours} from {theirs}" for ours, theirs in renamed.items()))
        if self.encoding not in (None, "utf-8"):
            parts.append(str(self.encoding))
        if self.separator not in (None, ","):
            parts.append(f"separator {self.separator!r}")
        if self.unused:
            parts.append(f"columns not used: {', '.join(self.unused)}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values; the first row is quoted."""
        return {
            "source": self.source,
            "rows": self.rows,
            "kinds": dict(self.kinds),
            "first": plain(self.fields()),
            "columns": dict(self.used),
            "unused": list(self.unused),
            "left_out": dict(self.left_out),
            "layouts": list(self.layouts),
            "encoding": self.encoding,
            "separator": self.separator,
            "warnings": list(self.warnings),
        }

    def fields(self) -> dict[str, object]:
        """The first row: every field that it has, in order."""
        values = {one.name: getattr(self.first, one.name) for one in dataclasses.fields(self.first)}
        return {name: value for name, value in values.items() if value not in (None, ())}

    def first_row(self, *, quoted: bool) -> str:
        """One line about the first row: its fields, with the start of each value, or with its size only."""
        return ", ".join(f"{name} {_start(value) if quoted else _size(value)}" for name, value in self.fields().items())


def say_all(progress: Progress, understood: Mapping[str, Sequence[DataSummary]]) -> None:
    """Report what was understood of every split; its text goes to a terminal only, never into a log."""
    for name, one in ((name, one) for name, parts in understood.items() for one in parts):
        progress.say(f"{name}: {one.source}: {one.summary()}")
        first = f"{name}: first row: "
        progress.quote(first + one.first_row(quoted=True), first + one.first_row(quoted=False))
        for warning in one.warnings:
            progress.say(f"{name}: warning: {warning}")


def warnings_of(understood: Mapping[str, Sequence[DataSummary]]) -> list[str]:
    """The warnings of every split as sentences of a record."""
    return [f"data.{name}: {text}" for name, parts in understood.items() for one in parts for text in one.warnings]


def unused_of(understood: Sequence[DataSummary]) -> list[str]:
    """Columns of a split that were not read."""
    return list(dict.fromkeys(column for one in understood for column in one.unused))


def _start(value: object) -> str:
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return "[" + ", ".join(_start(one) for one in value[:3]) + (", ...]" if len(value) > 3 else "]")
    if isinstance(value, tuple):
        return _size(value)
    text = " ".join(str(value).split())
    return f'"{text[:_SHOWN]}..."' if len(text) > _SHOWN else f'"{text}"'


def _size(value: object) -> str:
    return f"({len(value)})" if isinstance(value, tuple) else f"({len(str(value))} characters)"
