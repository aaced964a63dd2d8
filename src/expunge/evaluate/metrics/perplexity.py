"""Perplexity: how surprised the model is by the stored answer, `exp` of its mean token loss."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from expunge.evaluate.base import Item, Metric, mean_nll


class Perplexity(Metric):
    """At least 1; rows are averaged as losses, so that one hopeless row cannot outweigh all others."""

    needs = frozenset({"answer"})
    knowledge = "less"

    def value(self, item: Item, split: str) -> float:
        """At least 1."""
        return math.exp(min(mean_nll(item.answer, "an answer"), 700.0))

    @classmethod
    def aggregate(cls, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Geometric mean over rows."""
        geometric: NDArray[np.float64] = np.exp(np.log(values).mean(axis=-1))
        return geometric
