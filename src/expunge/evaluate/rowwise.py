"""Several models on the same rows: means, differences and shares, with intervals over rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.records import Better, Score
from expunge.numerics.intervals import (
    Clusters,
    Numbers,
    bootstrap_interval,
    clustered,
    percentiles,
    resampled_weights,
    share_interval,
    weighted_mean,
)


def mean_score(
    values: Sequence[float | str],
    seed: int,
    chance: float | None = None,
    better: Better = "lower",
    clusters: Clusters | None = None,
) -> Score:
    """Mean over the rows that have a number: a Wilson interval where all are 0 or 1, else a bootstrap over rows.

    Args:
        values: of R rows, or the reason for its absence.
        seed: of the bootstrap.
        chance: value of a model that knows nothing, where one is defined.
        better: which direction is wanted.
        clusters: of the rows; None for independent rows.
    """
    rows, about = common_rows([values], clusters)
    if not len(rows):
        return Score(value=None, better=better, reason=_reason(values))
    numbers = rows[:, 0]
    is_share = bool(np.isin(numbers, (0.0, 1.0)).all())
    low, high = share_interval(numbers, about) if is_share else bootstrap_interval(numbers, about, seed)
    return Score(
        value=float(numbers.mean()),
        low=low,
        high=high,
        n=len(numbers),
        clusters=clustered(about),
        better=better,
        chance=chance,
    )


def difference(
    first: Sequence[float | str], second: Sequence[float | str], seed: int, clusters: Clusters | None = None
) -> Score:
    """Mean of `first - second` over the rows that both have a number for, with its bootstrap interval over rows."""
    rows, about = common_rows([first, second], clusters)
    if not len(rows):
        return Score(value=None, reason=_reason([*first, *second]))
    gaps = rows @ np.array([1.0, -1.0])
    low, high = bootstrap_interval(gaps, about, seed)
    return Score(value=float(gaps.mean()), low=low, high=high, n=len(gaps), clusters=clustered(about))


def recovered(
    original: Sequence[float | str],
    unlearned: Sequence[float | str],
    changed: Sequence[float | str],
    seed: int,
    clusters: Clusters | None = None,
) -> Score:
    """Share of what was lost that a change of the unlearned model brings back.

    `(changed - unlearned) / (original - unlearned)` of the means over the rows that all three have a number for, with
    the 95% percentile interval over rows. Absent where the loss is not clear of 0: a share of nothing is no number.

    Args:
        original: values of R rows, or the reason for its absence.
        unlearned: the same of the unlearned model.
        changed: the same of the changed one.
        seed: of the bootstrap.
        clusters: of the rows; None for independent rows.
    """
    rows, about = common_rows([original, unlearned, changed], clusters)
    if not len(rows):
        return Score(value=None, reason=_reason([*original, *unlearned, *changed]))
    before, after, back = rows.T
    weights = resampled_weights(about or len(rows), seed)
    lost = weighted_mean(before - after, weights)
    if np.quantile(lost, 0.025) <= 0:
        return Score(value=None, n=len(rows), clusters=clustered(about), reason="nothing was clearly lost")
    gained = weighted_mean(back - after, weights)
    low, high = percentiles(gained[lost > 0] / lost[lost > 0])
    value = (back - after).mean() / (before - after).mean()
    return Score(value=float(value), low=low, high=high, n=len(rows), clusters=clustered(about), better="neither")


def common_rows(columns: Sequence[Sequence[float | str]], clusters: Clusters | None) -> tuple[Numbers, Clusters | None]:
    """(R, columns) values of the rows that have a number in each column, and what these rows are about."""
    rows = [
        (row, about)
        for *row, about in zip(*columns, clusters or [None] * len(columns[0]), strict=True)
        if not any(isinstance(one, str) for one in row)
    ]
    return np.array([row for row, _ in rows], dtype=np.float64), None if clusters is None else [one for _, one in rows]


def _reason(values: Sequence[float | str]) -> str:
    return next((value for value in values if isinstance(value, str)), "no rows")
