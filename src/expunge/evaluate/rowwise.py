"""Several models on the same rows: means, differences and shares, with intervals over rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.core.records import Better, Score
from expunge.evaluate.score import BOOTSTRAP_DRAWS

Numbers = NDArray[np.float64]


def resampled(num_rows: int, seed: int) -> NDArray[np.int64]:
    """(draws, R) rows of each bootstrap draw."""
    return np.random.default_rng(seed).integers(num_rows, size=(BOOTSTRAP_DRAWS, num_rows))


def mean_score(
    values: Sequence[float | str], seed: int, chance: float | None = None, better: Better = "lower"
) -> Score:
    """Mean over the rows that have a number: a Wilson interval where all are 0 or 1, else a bootstrap over rows.

    Args:
        values: of R rows, or why there is none.
        seed: of the bootstrap.
        chance: value of a model that knows nothing, where one is defined.
        better: which direction is wanted.
    """
    numbers = np.array([value for value in values if not isinstance(value, str)])
    if not len(numbers):
        return Score(value=None, better=better, reason=_reason(values))
    low, high = _interval(numbers, seed)
    return Score(value=float(numbers.mean()), low=low, high=high, n=len(numbers), better=better, chance=chance)


def difference(first: Sequence[float | str], second: Sequence[float | str], seed: int) -> Score:
    """Mean of `first - second` over the rows that both have a number for, with its bootstrap interval over rows."""
    rows = [pair for pair in zip(first, second, strict=True) if not any(isinstance(one, str) for one in pair)]
    if not rows:
        return Score(value=None, reason=_reason([*first, *second]))
    gaps = np.array(rows, dtype=np.float64) @ np.array([1.0, -1.0])
    low, high = np.quantile(gaps[resampled(len(gaps), seed)].mean(1), [0.025, 0.975])
    return Score(value=float(gaps.mean()), low=float(low), high=float(high), n=len(gaps))


def _interval(numbers: Numbers, seed: int) -> tuple[float, float]:
    from scipy.stats import binomtest

    if np.isin(numbers, (0.0, 1.0)).all():
        interval = binomtest(int(numbers.sum()), len(numbers)).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)
    low, high = np.quantile(numbers[resampled(len(numbers), seed)].mean(1), [0.025, 0.975])
    return float(low), float(high)


def _reason(values: Sequence[float | str]) -> str:
    return next((value for value in values if isinstance(value, str)), "no rows")


def recovered(
    original: Sequence[float | str], unlearned: Sequence[float | str], changed: Sequence[float | str], seed: int
) -> Score:
    """Share of what was lost that a change of the unlearned model brings back.

    `(changed - unlearned) / (original - unlearned)` of the means over the rows that all three have a number for, with
    the 95% percentile interval over rows. Absent where the loss is not clear of 0: a share of nothing is no number.

    Args:
        original: values of R rows, or why there is none.
        unlearned: the same of the unlearned model.
        changed: the same of the changed one.
        seed: of the bootstrap.
    """
    rows = [
        row for row in zip(original, unlearned, changed, strict=True) if not any(isinstance(one, str) for one in row)
    ]
    if not rows:
        return Score(value=None, reason=_reason([*original, *unlearned, *changed]))
    before, after, back = np.array(rows, dtype=np.float64).T
    draws = resampled(len(rows), seed)
    lost = (before - after)[draws].mean(1)
    if np.quantile(lost, 0.025) <= 0:
        return Score(value=None, n=len(rows), reason="nothing was clearly lost")
    gained = (back - after)[draws].mean(1)
    shares = gained[lost > 0] / lost[lost > 0]
    low, high = np.quantile(shares, [0.025, 0.975])
    value = (back - after).mean() / (before - after).mean()
    return Score(value=float(value), low=float(low), high=float(high), n=len(rows), better="neither")
