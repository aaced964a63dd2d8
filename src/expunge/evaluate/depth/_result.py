"""From numbers of rows to a score of depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.core.records import Score
from expunge.evaluate.score import BOOTSTRAP_DRAWS

Numbers = NDArray[np.float64]

SAME = "the retrained model is like the original one on these rows: there is nothing that could have been forgotten"


def absent(reason: str = SAME) -> Score:
    """A score that cannot be computed."""
    return Score(value=None, better="higher", reference="retrained", reason=reason)


def depth_score(statistic: Callable[[Numbers], Numbers], num_rows: int, seed: int, n: int) -> Score:
    """A statistic of weighted rows with its 95% interval over resampled rows.

    Args:
        statistic: (draws, R) weights of rows to (draws,); nan where a draw has no value.
        num_rows: R.
        seed: of the draws.
        n: rows that have a part in it.
    """
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=BOOTSTRAP_DRAWS).astype(float)
    value, *drawn = statistic(np.concatenate([np.ones((1, num_rows)), weights])).tolist()
    if not np.isfinite(value):
        return absent()
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Score(value=value, low=float(low), high=float(high), n=n, better="higher", reference="retrained")


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


def mean_depth(gaps: Sequence[tuple[Numbers, Numbers]], threshold: float, seed: int) -> Score:
    """Mean of `gap_depth` over the rows that have one.

    Args:
        gaps: for each row, (L,) of the retrained and (L,) of the unlearned model.
        threshold: in nats.
        seed: of the interval.
    """
    found = [gap_depth(retrained, unlearned, threshold) for retrained, unlearned in gaps]
    values = np.array([value for value in found if value is not None])
    if not len(values):
        return absent()

    def mean(weights: Numbers) -> Numbers:
        means: Numbers = weights @ values / weights.sum(axis=1)
        return means

    return depth_score(mean, len(values), seed, len(values))
