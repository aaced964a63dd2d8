"""Summary of a run's scores: the worst leak that was found, and the share of utility that was kept."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import KEYWORD_METRICS, REASONING_METRIC, Change, Frozen, Record, Score, Scores
from expunge.reports.metric_texts import utility_metrics

LEAK_METRICS = (*KEYWORD_METRICS, REASONING_METRIC)
"""Metrics that look for a fact's keyword in answers; the first asks the plain question."""

UTILITY_SPLITS = ("neighbour", "general", "retain")

LEAST_KNOWN = 0.1
"""A split that scored less before the run has next to nothing to lose: its share kept would be noise."""


class Leak(Frozen):
    """One metric of leaks on the forget rows, with its value."""

    metric: str
    score: Score
    value: float

    @property
    def upper(self) -> float:
        """The upper end of the interval, or the value where there is no interval."""
        return self.value if self.score.high is None else max(self.value, self.score.high)


class Kept(Frozen):
    """A score after as a share of the same score before."""

    split: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    shown: bool = Field(True, description="Whether the change is more than chance, as the table's last column says")


def find(scores: Scores, split: str, metric: str) -> Score | None:
    """The score, if it was taken and is not absent."""
    score = scores.get(split, {}).get(metric)
    return None if score is None or score.value is None else score


def leak_metrics(scores: Scores) -> list[str]:
    """The keyword metrics that the forget split has, or else its first fallback, or else nothing."""
    leaking = [metric for metric in LEAK_METRICS if find(scores, "forget", metric)]
    return leaking or [metric for metric in fallback_metrics() if find(scores, "forget", metric)][:1]


def fallback_metrics() -> list[str]:
    """Metrics that measure forgetting where the data have no keywords, the preferred first."""
    return [metric for metric in utility_metrics() if metric not in LEAK_METRICS]


def leaks(scores: Scores, metrics: list[str]) -> list[Leak]:
    """Each of `metrics` that the forget split has, in the given order."""
    found = ((metric, find(scores, "forget", metric)) for metric in metrics)
    return [
        Leak(metric=metric, score=score, value=score.value)
        for metric, score in found
        if score is not None and score.value is not None
    ]


def worst(found: list[Leak]) -> Leak | None:
    """The largest leak; the earliest of equals."""
    return max(found, key=lambda leak: leak.value, default=None)


def change_shown(before: Score, after: Score, change: Change | None) -> bool:
    """Whether a difference is more than chance: the one test behind the table's words and the verdict's.

    Args:
        before: score before the run.
        after: the same after it.
        change: the paired difference; None in records without one, whose intervals must not overlap.
    """
    if change is not None:
        return change.shown
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return before.value != after.value
    return not (before.low <= after.high and after.low <= before.high)


def kept(record: Record, split: str) -> Kept | None:
    """How much of its own score before a split keeps, by the first utility metric that both stages have.

    The interval is that of the paired difference, as a share of the score before; in records without paired
    differences, that of the score after.

    Returns None when no metric is there at both stages with a value of at least LEAST_KNOWN before.
    """
    for metric in utility_metrics():
        before, after = find(record.before, split, metric), find(record.after, split, metric)
        if before is None or after is None or before.value is None or after.value is None:
            continue
        base = before.value
        if base < LEAST_KNOWN:
            continue
        change = record.changes.get(split, {}).get(metric)
        ends = (after.low, after.high) if change is None else (base + change.low, base + change.high)
        return Kept(
            split=split,
            metric=metric,
            value=after.value / base,
            low=None if ends[0] is None else ends[0] / base,
            high=None if ends[1] is None else ends[1] / base,
            n=after.n,
            shown=change_shown(before, after, change),
        )
    return None


def utility(record: Record) -> list[Kept]:
    """The share of utility that each split that should stay has kept, if it was measured."""
    shares = (kept(record, split) for split in UTILITY_SPLITS)
    return [share for share in shares if share is not None]
