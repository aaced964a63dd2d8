"""Two models over the same rows: is there a difference, and how large?

What is random is the row, and, where an arm was trained several times, the training. No function here looks at names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from expunge.numerics.intervals import (
    DRAWS,
    Clusters,
    Numbers,
    cluster_codes,
    clustered,
    num_clusters,
    percentiles,
    resampled_weights,
)


class Statistic(Protocol):
    """Row values to a score along the last axis, (..., n) -> (...); with (D, n) weights of n values to (D,)."""

    def __call__(self, values: Numbers, weights: Numbers | None = None) -> Numbers:
        """The score."""


FLIPS = 9999
"""Largest number of sign patterns: all of them if there are no more, else this many at random."""
_BATCH = 1000


class Paired(NamedTuple):
    """A second arm less a first one, over n rows that both have."""

    n: int
    clusters: int | None
    first: float
    second: float
    difference: float
    low: float
    high: float
    """95% interval of the difference: percentile bootstrap over rows, and over an arm's runs where it has several."""
    p: float
    """Two-sided, by swapping the two arms' values row by row."""
    dz: float | None
    """Mean of the row differences over their standard deviation; None where all are the same."""
    dominance: float
    """Share of rows where the second is higher less the share where it is lower: Cliff's delta within pairs."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.low <= 0 <= self.high


def paired(
    first: Numbers, second: Numbers, aggregate: Statistic, seed: int, clusters: Clusters | None = None
) -> Paired:
    """Compare two arms over the same rows.

    Args:
        first: (R1, n) values of the n rows by each run of the first arm.
        second: (R2, n) the same of the second, rows in the same order.
        aggregate: row values to a score.
        seed: of resampled rows, runs and signs.
        clusters: of the rows: the interval resamples, and the test swaps, rows of one cluster together.
    """
    mine, theirs = first.mean(axis=0), second.mean(axis=0)
    gaps = theirs - mine
    low, high = paired_interval(first, second, aggregate, seed, clusters)
    spread = float(gaps.std(ddof=1)) if len(gaps) > 1 else 0.0
    scores = [float(aggregate(arm).mean()) for arm in (first, second)]
    return Paired(
        n=len(gaps),
        clusters=clustered(clusters),
        first=scores[0],
        second=scores[1],
        difference=scores[1] - scores[0],
        low=low,
        high=high,
        p=swap_test(mine, theirs, aggregate, seed, clusters),
        dz=float(gaps.mean()) / spread if spread > 1e-12 * max(1.0, float(np.abs(gaps).max())) else None,
        dominance=float(np.sign(gaps).mean()),
    )


def paired_interval(
    first: Numbers, second: Numbers, aggregate: Statistic, seed: int, clusters: Clusters | None = None
) -> tuple[float, float]:
    """95% interval of the difference alone; arguments as for `paired`."""
    weights = resampled_weights(clusters or first.shape[1], seed)
    generator = np.random.default_rng([seed, 1])
    ends = []
    for arm in (first, second):
        runs = generator.integers(len(arm), size=(DRAWS, len(arm)))
        each = np.stack([aggregate(one, weights) for one in arm], axis=1)
        ends.append(np.take_along_axis(each, runs, axis=1).mean(axis=1))
    return percentiles(ends[1] - ends[0])


def swap_test(
    first: Numbers, second: Numbers, aggregate: Statistic, seed: int, clusters: Clusters | None = None
) -> float:
    """Two-sided p-value of `aggregate(second) - aggregate(first)` if each row's two values could stand either way.

    `scipy.stats.permutation_test(..., permutation_type="samples")` gives the same and takes six times as long.

    Args:
        first: (n,) row values.
        second: (n,) of the same rows.
        aggregate: row values to a score.
        seed: of the random patterns, if there are too many to test all.
        clusters: rows of one cluster are swapped together; None for independent rows.
    """
    codes = cluster_codes(clusters or len(first))
    count = num_clusters(clusters or len(first))
    found = abs(float(aggregate(second) - aggregate(first)))
    exact = 2**count <= FLIPS
    total = 2**count if exact else FLIPS
    generator = np.random.default_rng(seed)
    as_extreme = 0
    for start in range(0, total, _BATCH):
        size = min(_BATCH, total - start)
        if exact:
            swap = (np.arange(start, start + size)[:, None] >> np.arange(count)) % 2 == 1
        else:
            swap = generator.integers(0, 2, (size, count), dtype=np.bool_)
        swap = swap[:, codes]
        gap = aggregate(np.where(swap, first, second)) - aggregate(np.where(swap, second, first))
        as_extreme += int((np.abs(gap) >= found * (1 - 1e-9)).sum())
    return as_extreme / total if exact else (as_extreme + 1) / (total + 1)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in their order: `max` over smaller ones of `(m - rank) p`, at most 1.

    Source: Holm (1979), the step-down procedure; the chance that any true null is rejected stays below the level.
    """
    order = sorted(range(len(p)), key=lambda place: p[place])
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


class OverSeeds(NamedTuple):
    """A score over runs that differ by their seed only."""

    mean: float
    low: float | None
    high: float | None
    """95% t interval of the mean over runs; None of a single run."""


def over_seeds(scores: Sequence[float]) -> OverSeeds:
    """Mean of the runs' scores with its interval, which estimates the mean over seeds."""
    from scipy.stats import t

    mean = float(np.mean(scores))
    if len(scores) < 2:
        return OverSeeds(mean, None, None)
    half = float(t.ppf(0.975, len(scores) - 1) * np.std(scores, ddof=1) / np.sqrt(len(scores)))
    return OverSeeds(mean, mean - half, mean + half)
