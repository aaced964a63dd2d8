"""Perplexity: how surprised the model is by the stored answer, `exp` of its mean token loss."""

from __future__ import annotations

import math

import numpy as np

from expunge.evaluate.base import Item, Metric, mean_nll
from expunge.numerics.intervals import Numbers, weighted_mean


class Perplexity(Metric):
    """At least 1; rows are averaged as losses, so that one hopeless row cannot outweigh all others."""

    meaning = "How surprised the model is by the stored text; 1 is not at all."
    needs = frozenset({"answer"})
    knowledge = "less"

    def value(self, item: Item, split: str) -> float:
        """At least 1."""
        return math.exp(min(mean_nll(item.answer, "an answer"), 700.0))

    @classmethod
    def aggregate(cls, values: Numbers, weights: Numbers | None = None) -> Numbers:
        """Geometric mean over rows."""
        geometric: Numbers = np.exp(weighted_mean(np.log(values), weights))
        return geometric
