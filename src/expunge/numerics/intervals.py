"""95% intervals over rows. Rows of one cluster (one person, one document) are drawn together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Clusters = Sequence[str | int | None]
"""For each row, what it is about; rows without a label are independent of all others."""

DRAWS = 2000
"""Bootstrap resamples of every interval."""
_TAIL = 0.025
_Z = 1.959963984540054
"""Quantile of the standard normal distribution at 0.975."""


def num_clusters(rows: int | Clusters) -> int:
    """Units that are drawn: clusters, or the rows themselves where all belong to one cluster.

    A single cluster says nothing about others like it, so its interval is about its own rows.
    """
    return max(cluster_codes(rows), default=-1) + 1


def clustered(rows: Clusters | None) -> int | None:
    """Number of clusters; None where every row is drawn by itself."""
    count = num_clusters(rows or 0)
    return count if rows and count < len(rows) else None


def resampled_weights(rows: int | Clusters, seed: int) -> Numbers:
    """How often each row occurs in each bootstrap resample, drawn by cluster with replacement.

    The same rows and seed give the same resamples, so that statistics of several models are paired.

    Args:
        rows: number of independent rows, or the cluster of each of R rows.
        seed: of the draws.

    Returns:
        (DRAWS, R); a resample of clusters of unequal size does not add up to R.
    """
    return _weights(cluster_codes(rows), seed)


def percentiles(draws: Numbers) -> tuple[float, float]:
    """95% percentile interval of a statistic's resampled values, (DRAWS,); a resample without a value is nan."""
    low, high = np.nanquantile(draws, [_TAIL, 1 - _TAIL])
    return float(low), float(high)


def mean_band(values: Numbers, seed: int, rows: Clusters | None = None) -> tuple[Numbers, Numbers, Numbers]:
    """Mean over rows and the ends of its 95% percentile interval, for each place of a curve or table.

    Args:
        values: (R, ...).
        seed: of the draws.
        rows: the cluster of each row; None for independent rows.

    Returns:
        Three arrays (...).
    """
    weights = resampled_weights(len(values) if rows is None else rows, seed)
    means = np.tensordot(weights / weights.sum(axis=1, keepdims=True), values, axes=1)
    low, high = np.quantile(means, [_TAIL, 1 - _TAIL], axis=0)
    return values.mean(axis=0), low, high


def weighted_mean(values: Numbers, weights: Numbers | None = None) -> Numbers:
    """Mean over the last axis, (..., n) -> (...); with weights (D, n) of n values, D weighted means."""
    mean: Numbers = values.mean(axis=-1) if weights is None else (weights @ values) / weights.sum(axis=-1)
    return mean


def bootstrap_interval(
    values: Numbers, rows: Clusters | None, seed: int, statistic: Callable[[Numbers, Numbers], Numbers] = weighted_mean
) -> tuple[float, float]:
    """95% percentile interval of a statistic of weighted rows.

    Args:
        values: (R,).
        rows: the cluster of each row; None for independent rows.
        seed: of the draws.
        statistic: values and (D, R) weights to (D,) values.
    """
    return percentiles(statistic(values, resampled_weights(len(values) if rows is None else rows, seed)))


def share_interval(values: Numbers, rows: Clusters | None = None) -> tuple[float, float]:
    """95% Wilson interval of a share, which keeps its width at 0 and 1.

    Clusters reduce the number of rows by the design effect, the ratio of the mean's variance between clusters to that
    of independent rows, where it is above 1. A share of exactly 0 or 1 has no variance to tell it by, and counts all
    rows. Source: Korn and Graubard (1998), without their correction for few clusters.

    Args:
        values: (R,) zeros and ones.
        rows: the cluster of each row; None for independent rows.
    """
    share, size = float(values.mean()), len(values) / design_effect(values, rows)
    centre = share + _Z**2 / (2 * size)
    half = _Z * math.sqrt(share * (1 - share) / size + (_Z / (2 * size)) ** 2)
    scale = 1 + _Z**2 / size
    return (0.0 if share == 0 else (centre - half) / scale), (1.0 if share == 1 else (centre + half) / scale)


def design_effect(values: Numbers, rows: Clusters | None) -> float:
    """Variance of the mean between clusters over that of independent rows, at least 1 (Kish, 1965).

    Args:
        values: (R,).
        rows: the cluster of each row; None for independent rows.
    """
    codes = np.array(cluster_codes(len(values) if rows is None else rows))
    units, spread = int(codes.max(initial=-1)) + 1, float(values.var())
    if units in (0, len(values)) or spread == 0:
        return 1.0
    sums = np.bincount(codes, values - values.mean())
    between = units / (units - 1) * float((sums**2).sum()) / len(values) ** 2
    return max(1.0, between / (spread / (len(values) - 1)))


def cluster_codes(rows: int | Clusters) -> tuple[int, ...]:
    """A number for each row, the same for rows of one cluster; every row its own where there is only one cluster."""
    if isinstance(rows, int):
        return tuple(range(rows))
    known: dict[object, int] = {}
    codes = tuple(
        known.setdefault(("row", index) if label is None else ("cluster", label), len(known))
        for index, label in enumerate(rows)
    )
    return codes if len(known) > 1 else tuple(range(len(codes)))


@lru_cache(maxsize=1)
def _weights(codes: tuple[int, ...], seed: int) -> Numbers:
    units = max(codes, default=-1) + 1
    drawn = np.random.default_rng(seed).integers(units, size=(DRAWS, units))
    drawn += units * np.arange(DRAWS)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=DRAWS * units).reshape(DRAWS, units).astype(np.float64)
    weights: Numbers = counts if units == len(codes) else counts[:, list(codes)]
    weights.flags.writeable = False
    return weights
