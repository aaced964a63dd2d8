"""From numbers of rows to a score of depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

import numpy as np

from expunge.core.records import Score
from expunge.numerics.intervals import Clusters, Numbers, clustered, percentiles, resampled_weights, weighted_mean

SAME = "the retrained model is like the original one on these rows: there is nothing that could have been forgotten"


def absent(reason: str = SAME) -> Score:
    """A score that cannot be computed."""
    return Score(value=None, better="higher", reference="retrained", reason=reason)


def depth_score(statistic: Callable[[Numbers], Numbers], rows: int | Clusters, seed: int) -> Score:
    """A statistic of weighted rows with its 95% interval over resampled rows.

    Args:
        statistic: (draws, R) weights of rows to (draws,); nan where a draw has no value.
        rows: R, or what each of R rows is about.
        seed: of the draws.
    """
    weights = resampled_weights(rows, seed)
    num_rows = weights.shape[1]
    value, *drawn = statistic(np.concatenate([np.ones((1, num_rows)), weights])).tolist()
    if not np.isfinite(value):
        return absent()
    low, high = percentiles(np.array(drawn))
    units = None if isinstance(rows, int) else clustered(rows)
    return Score(value=value, low=low, high=high, n=num_rows, clusters=units, better="higher", reference="retrained")


def gap_depth(retrained: Numbers, unlearned: Numbers, threshold: float) -> float | None:
    """How much the unlearned model lacks of what the retrained one lacks, of a row.

    `sum_l gap_l(ret) * clip(gap_l(unl) / gap_l(ret), 0, 1) / sum_l gap_l(ret)`, over the blocks l whose gap_l(ret) is
    above the threshold.

    Args:
        retrained: (L,) what the retrained model lacks at each block, in nats.
        unlearned: (L,) what the unlearned one lacks.
        threshold: in nats.

    Returns:
        In [0, 1]; None where no block is above the threshold.
    """
    counted = retrained > threshold
    if not counted.any():
        return None
    return float(np.clip(unlearned[counted], 0, retrained[counted]).sum() / retrained[counted].sum())


def mean_depth(gaps: Sequence[tuple[Numbers, Numbers]], clusters: Clusters, threshold: float, seed: int) -> Score:
    """Mean of `gap_depth` over the rows that have one.

    Args:
        gaps: for each row, (L,) of the retrained and (L,) of the unlearned model.
        clusters: what each row is about.
        threshold: in nats.
        seed: of the interval.
    """
    found = [gap_depth(retrained, unlearned, threshold) for retrained, unlearned in gaps]
    has = [value is not None for value in found]
    values = np.array([*compress(found, has)], dtype=np.float64)
    if not len(values):
        return absent()
    return depth_score(lambda weights: weighted_mean(values, weights), [*compress(clusters, has)], seed)
