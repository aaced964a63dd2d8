"""What a run changed, row by row: the same rows before and after it."""

from __future__ import annotations

from expunge.core import plugins
from expunge.core.records import Change, Changes
from expunge.evaluate.base import Metric
from expunge.evaluate.items import Values
from expunge.evaluate.paired import paired_interval
from expunge.evaluate.rowwise import common_rows
from expunge.evaluate.score import FOLDER, Units
from expunge.numerics.intervals import Clusters


def changes(before: Values, after: Values, seed: int, units: Units | None = None) -> Changes:
    """The paired change of every row metric on every set, over the rows that have a number at both stages.

    Args:
        before: set -> metric -> a number for each row, or the reason for its absence.
        after: the same rows after the run.
        seed: of the resampled rows.
        units: set -> the cluster of each row. Default: every row is independent.
    """
    return {
        name: {
            metric: change
            for metric, numbers in by_metric.items()
            if metric in before.get(name, {})
            and (change := _change(metric, before[name][metric], numbers, seed, (units or {}).get(name)))
        }
        for name, by_metric in after.items()
    }


def _change(
    metric: str, before: list[float | str], after: list[float | str], seed: int, units: Clusters | None
) -> Change | None:
    rows, clusters = common_rows([before, after], units)
    if not len(rows):
        return None
    aggregate = plugins.find(FOLDER, metric, Metric).aggregate  # type: ignore[type-abstract]
    first, second = rows.T
    low, high = paired_interval(first[None], second[None], aggregate, seed, clusters)
    return Change(difference=float(aggregate(second) - aggregate(first)), low=low, high=high, n=len(rows))
