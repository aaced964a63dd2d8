"""From the numbers of rows to a score, and the measures that compare gaps block by block."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from expunge.core.records import Score
from expunge.evaluate.whitebox.base import Observed, Stage, WhiteBoxMeasure, gap_shares
from expunge.models.tensor_store import RowStore
from expunge.numerics.intervals import Clusters, Numbers, clustered, percentiles, resampled_weights, weighted_mean

SAME = "the retrained model is like the original one on these rows: there is nothing that could have been forgotten"


def absent(reason: str = SAME) -> Score:
    """A score that cannot be computed."""
    return Score(value=None, better="higher", reference="retrained", reason=reason)


def depth_score(statistic: Callable[[Numbers], Numbers], rows: int | Clusters, seed: int) -> Score:
    """A statistic of weighted rows with its 95% interval over resampled rows.

    Args:
        statistic: (draws, R) weights of rows to (draws,); nan for draws without a value.
        rows: R, or the clusters of R rows.
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


class GapMeasure(WhiteBoxMeasure):
    """Mean over rows of the share of the retrained model's gaps to the original that the unlearned model has.

    See `gap_shares`; rows in which no block counts are left out.
    """

    stages: ClassVar[tuple[Stage, ...]] = ("retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._states: dict[tuple[Stage, str], RowStore] = {}
        self._gaps: dict[tuple[Stage, str], Numbers] = {}

    def observe(self, stage: Stage, observed: Observed) -> None:
        """Keep the states of the other models, and compare them with the original model."""
        if stage != "original":
            self._states[stage, observed.label] = observed.states
            return
        rows = zip(*self._states.values(), strict=True)
        gaps = [self.gaps(observed, row, states) for row, states in enumerate(rows)]
        self._gaps = dict(zip(self._states, np.stack(gaps, axis=1), strict=True))

    @abstractmethod
    def gaps(self, original: Observed, row: int, states: Sequence[Tensor]) -> Numbers:
        """What other models lack at each block, in nats.

        Args:
            original: the original model.
            row: index of a row.
            states: of S other models, (L, N, D) each, for that row.

        Returns:
            (S, L).
        """

    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """Mean over rows."""
        retrained, unlearned = self._gaps["retrained", ""], self._gaps["unlearned", label]
        _, shares = gap_shares(retrained, unlearned, self.config.threshold)
        has = np.isfinite(shares)
        if not has.any():
            return absent()
        values = shares[has]
        return depth_score(lambda weights: weighted_mean(values, weights), [*compress(clusters, has)], seed)
