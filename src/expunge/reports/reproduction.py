"""The tables of a reproduction: the reported results, the grid of strengths, and whether the claims hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from expunge.core.records import Aggregates, Frozen, KindCounts, Record, Scores
from expunge.reports.claims import Judged
from expunge.reports.formats import number
from expunge.reports.quantities import Column, RecordQuantity, at_path, bare, cell, value_of


class GridPoint(Frozen):
    """One strength of one method on the rows that strengths are chosen on."""

    key: str
    strength: float
    kept: float
    """Utility after, as a share of utility before."""
    utility: float
    leak: float
    seconds: float

    @classmethod
    def of(cls, record: Record, key: str, strength: float, utility: str | RecordQuantity, leak: str) -> GridPoint:
        """Read a point off a run's record; an absent score counts as nothing kept, or as everything leaked.

        Args:
            record: of the run.
            key: the option that sets the strength.
            strength: its value.
            utility: an aggregate, or a share of what was there before.
            leak: a score of the forget rows.
        """
        if isinstance(utility, RecordQuantity):
            after = value_of(record, utility) or 0.0
            before = 1.0
        else:
            before, after = (
                found[utility].value or 0.0 if utility in found else 0.0
                for found in (record.aggregates_before, record.aggregates_after)
            )
        score = record.after["forget"][leak].value
        return cls(
            key=key,
            strength=strength,
            kept=after / before if before else 0.0,
            utility=after,
            leak=1.0 if score is None else score,
            seconds=record.seconds["train"],
        )


@dataclass(frozen=True)
class PartialRecord:
    """The fields of a record that a model which no run has made can have."""

    after: Scores
    aggregates_after: Aggregates
    before: Scores = field(default_factory=dict)
    kinds: dict[str, KindCounts] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Reported(Frozen):
    """One row of the table of results."""

    method: str
    strength: str
    records: list[Record | PartialRecord]
    """Of its seeds."""


class Section(Frozen):
    """Everything about one choice of facts and target model."""

    title: str
    """Empty where there is only one."""
    reported: list[Reported]
    points: dict[str, list[GridPoint]]
    """Every strength tried on other rows, by method."""
    chosen: dict[str, GridPoint]
    """The one that is reported."""
    judged: list[Judged]


def choose(points: Sequence[GridPoint], keep: float, target: float | None = None) -> GridPoint:
    """The strength to report.

    Without a target the one that forgets most among those that keep enough utility; if none does, the one that keeps
    most. With one, so that methods are compared at equal forgetting, the one that keeps most utility among those that
    forget as much; if none does, the one that forgets most.
    """
    if target is not None:
        reached = [point for point in points if point.leak <= target]
        return max(reached, key=lambda point: point.kept) if reached else min(points, key=lambda point: point.leak)
    enough = [point for point in points if point.kept >= keep]
    return min(enough, key=lambda point: point.leak) if enough else max(points, key=lambda point: point.kept)


def untouched(record: Record) -> PartialRecord:
    """A run as if it had ended where it began."""
    return PartialRecord(
        before=record.before,
        after=record.before,
        aggregates_after=record.aggregates_before,
        kinds={"after": record.kinds.get("before", {})},
    )


def table(title: str, command: str, columns: Mapping[str, Column], sections: Sequence[Section]) -> str:
    """For each section Markdown tables of the reported results and of the whole grid, and its claims.

    Args:
        title: of the document.
        command: the command that made it.
        columns: heading -> quantity; a score or aggregate is shown with its interval.
        sections: in order.
    """
    lines = [title, "", f"`{command}`", ""]
    for section in sections:
        lines += [f"### {section.title}", ""] if section.title else []
        lines += _row(["method", "strength", *columns])
        lines += _row(["---"] * (2 + len(columns)))
        for one in section.reported:
            lines += _row([one.method, one.strength, *(_cell(one.records, column) for column in columns.values())])
        lines += ["", "Means over seeds; brackets: the outer ends of the runs' 95% intervals, or of plain numbers.", ""]
        if section.points:
            lines += ["The grid, on other rows:", ""]
            lines += _row(["method", "strength", "utility kept", "utility", "forget leak", "training, s", "chosen"])
            lines += _row(["---"] * 7)
        for method, some in section.points.items():
            for point in some:
                numbers = [f"{point.kept:.2f}", f"{point.utility:.2f}", f"{point.leak:.3f}", f"{point.seconds:.0f}"]
                mark = "yes" if point == section.chosen[method] else ""
                lines += _row([method, f"{point.key} {point.strength:g}", *numbers, mark])
        lines += _claims(section.judged)
    return "\n".join([*lines, ""])


def _claims(judged: Sequence[Judged]) -> list[str]:
    if not judged:
        return []
    head = ["", "Claims, by 95% t-intervals over seeds; of two methods, of their differences seed by seed:", ""]
    return [*head, *(f"- {one.claim.says}: **{one.verdict}** ({one.evidence})" for one in judged), ""]


def _row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def _cell(records: Sequence[Record | PartialRecord], column: Column) -> str:
    found = [value for record in records if (value := cell(record, column)) is not None]
    values = [value for one in found if (value := bare(one)) is not None]
    if not values:
        return "absent"
    lows, highs = ([end for one in found if (end := at_path(one, name)) is not None] for name in ("low", "high"))
    low, high = (min(lows), max(highs)) if lows and highs else (min(values), max(values))
    mean = number(sum(values) / len(values))
    return mean if low == high else f"{mean} [{number(low)}, {number(high)}]"
