"""What a run changed, row by row: the same rows before and after it."""

from __future__ import annotations

import numpy as np

from expunge.core import plugins
from expunge.core.records import Change, Changes
from expunge.evaluate.base import Metric
from expunge.evaluate.items import Values
from expunge.evaluate.paired import paired_interval
from expunge.evaluate.score import FOLDER


def changes(before: Values, after: Values, seed: int) -> Changes:
    """The paired change of every row metric on every set, over the rows that have a number at both stages.

    Args:
        before: set -> metric -> a number for each row, or why there is none.
        after: the same rows after the run.
        seed: of the resampled rows.
    """
    return {
        name: {
            metric: change
            for metric, numbers in by_metric.items()
            if metric in before.get(name, {}) and (change := _change(metric, before[name][metric], numbers, seed))
        }
        for name, by_metric in after.items()
    }


def _change(metric: str, before: list[float | str], after: list[float | str], seed: int) -> Change | None:
    pairs = zip(before, after, strict=True)
    rows = [(one, two) for one, two in pairs if not isinstance(one, str) and not isinstance(two, str)]
    if not rows:
        return None
    aggregate = plugins.find(FOLDER, metric, Metric).aggregate  # type: ignore[type-abstract]
    first, second = np.array(rows, dtype=np.float64).T
    low, high = paired_interval(first[None], second[None], aggregate, seed)
    return Change(difference=float(aggregate(second) - aggregate(first)), low=low, high=high, n=len(rows))
