"""The table of a reproduction: every strength that was tried, and what the chosen ones gave on other rows and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.records import Frozen, Record
from expunge.reports.words import number


class Point(Frozen):
    """One strength of one method on the rows that strengths are chosen on."""

    key: str
    strength: float
    kept: float
    """Utility after, as a share of utility before."""
    utility: float
    leak: float
    seconds: float

    @classmethod
    def of(cls, record: Record, key: str, strength: float, utility: str, leak: str) -> Point:
        """Read a point off a run's record; an absent score counts as nothing kept, or as everything leaked."""
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


def choose(points: Sequence[Point], keep: float) -> Point:
    """The strength that forgets most among those that keep enough utility; if none does, the one that keeps most."""
    enough = [point for point in points if point.kept >= keep]
    return min(enough, key=lambda point: point.leak) if enough else max(points, key=lambda point: point.kept)


def table(
    title: str,
    command: str,
    columns: Mapping[str, str],
    points: Mapping[str, Sequence[Point]],
    chosen: Mapping[str, Point],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """Two Markdown tables: the chosen strengths on reported rows and seeds, then the whole grid.

    Args:
        title: what it is about.
        command: what made it.
        columns: heading -> dotted path into a record; a score or aggregate there is shown with its interval.
        points: every strength tried.
        chosen: the one that is reported, by method.
        records: for each method the records of its seeds, as plain dicts.
    """
    lines = [title, "", f"`{command}`", ""]
    lines += _row(["method", "strength", *columns])
    lines += _row(["---"] * (2 + len(columns)))
    for method, found in records.items():
        strength = f"{chosen[method].key} {chosen[method].strength:g}" if method in chosen else ""
        lines += _row([method, strength, *(_cell(found, path) for path in columns.values())])
    lines += ["", "Means over seeds, with the outer ends of the runs' 95% intervals. The grid, on other rows:", ""]
    lines += _row(["method", "strength", "utility kept", "utility", "forget leak", "training, s", "chosen"])
    lines += _row(["---"] * 7)
    for method, some in points.items():
        for point in some:
            numbers = [f"{point.kept:.2f}", f"{point.utility:.2f}", f"{point.leak:.3f}", f"{point.seconds:.0f}"]
            mark = "yes" if point == chosen[method] else ""
            lines += _row([method, f"{point.key} {point.strength:g}", *numbers, mark])
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def _cell(records: Sequence[Mapping[str, Any]], path: str) -> str:
    found = [value for record in records if (value := at_path(record, path)) is not None]
    values = [value["value"] if isinstance(value, Mapping) else value for value in found]
    values = [value for value in values if value is not None]
    if not values:
        return "absent"
    lows = [value["low"] for value in found if isinstance(value, Mapping) and value.get("low") is not None]
    highs = [value["high"] for value in found if isinstance(value, Mapping) and value.get("high") is not None]
    low, high = (min(lows), max(highs)) if lows and highs else (min(values), max(values))
    mean = number(sum(values) / len(values))
    return mean if low == high else f"{mean} [{number(low)}, {number(high)}]"


def at_path(record: Any, path: str) -> Any:
    """What lies at a dotted path of tables and lists (-1 is the last entry); None where it leads nowhere."""
    for part in path.split("."):
        try:
            record = record[int(part)] if isinstance(record, Sequence) else record[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return record
