"""Forget efficacy and model utility at both stages: the numbers, their parts, and the parts that made one zero."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING

from expunge.core.records import Aggregate, Aggregates, Component, Frozen, Record
from expunge.reports.formats import ABSENT, FAMILIES, SPLITS, number, ordered, score_text
from expunge.reports.metric_texts import metric_title

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

NOT_MEASURED = Aggregate(value=None, components=[], reason="not measured at this stage")


class Whole(Frozen):
    """One aggregate at both stages."""

    name: str
    before: Aggregate
    after: Aggregate

    @property
    def meaning(self) -> str:
        """Definition of the aggregate, by the letters at the start of its name."""
        return FAMILIES.get("".join(takewhile(str.isalpha, self.name)), "")

    @property
    def absent(self) -> bool:
        """Whether neither stage has a value."""
        return self.before.value is None and self.after.value is None

    @property
    def reasons(self) -> list[str]:
        """Why a stage is absent, each reason once."""
        some = (self.before, self.after)
        return list(dict.fromkeys(one.reason or "no reason was recorded" for one in some if one.value is None))

    @property
    def zeros(self) -> list[str]:
        """`0 after because of retain/entailment`, for each stage that is zero."""
        stages = (("before", self.before), ("after", self.after))
        return [f"0 {stage} because of {', '.join(one.zeroed_by)}" for stage, one in stages if one.zeroed_by]

    @property
    def parts(self) -> list[tuple[Component, Component | None]]:
        """Each part after, beside the same before."""
        before = {(part.split, part.name): part for part in self.before.components}
        return [(part, before.get((part.split, part.name))) for part in self.after.components]


def wholes(record: Record) -> list[Whole]:
    """Every aggregate of a run."""
    before, after = record.aggregates_before, record.aggregates_after
    return [
        Whole(name=name, before=before.get(name, NOT_MEASURED), after=after.get(name, NOT_MEASURED))
        for name in dict.fromkeys([*before, *after])
    ]


def matrix(stage: Aggregates) -> tuple[list[str], dict[str, dict[str, float]]]:
    """The distinct parts of one stage's aggregates: splits, and name -> split -> value."""
    parts = [part for one in stage.values() for part in one.components if part.value is not None]
    cells: dict[str, dict[str, float]] = {}
    for part in parts:
        assert part.value is not None
        cells.setdefault(part.name, {})[part.split] = part.value
    return ordered((part.split for part in parts), SPLITS), cells


def print_aggregates(record: Record, terminal: Terminal) -> None:
    """Print the aggregates that have a value, why one is zero or absent, and the parts after the run."""
    listed = wholes(record)
    measured = [one for one in listed if not one.absent]
    terminal.table(
        ["aggregate", "before [95%]", "after [95%]"],
        [[one.name, score_text(one.before), score_text(one.after)] for one in measured],
    )
    for note in notes(listed):
        terminal.prose(note)
    if measured:
        print_parts(record.aggregates_after, "their parts, after", terminal)


def print_parts(stage: Aggregates, heading: str, terminal: Terminal) -> None:
    """Print the distinct parts of one stage's aggregates: a row for each name, a column for each split."""
    splits, cells = matrix(stage)
    terminal.table(
        [heading, *splits],
        [
            [metric_title(name), *(number(row[split]) if split in row else "" for split in splits)]
            for name, row in cells.items()
        ],
    )


def notes(some: Iterable[Whole]) -> list[str]:
    """One line for each zero and each reason of absence."""
    zeros: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    for one in some:
        for cause in one.zeros:
            zeros.setdefault(cause, []).append(one.name)
        for reason in one.reasons:
            absent.setdefault(reason, []).append(one.name)
    return [f"{', '.join(names)}: {cause}" for cause, names in zeros.items()] + [
        f"{ABSENT}: {', '.join(names)} ({reason})" for reason, names in absent.items()
    ]
