"""Probability: geometric-mean token probability of the stored answer (arXiv:2401.06121)."""

from __future__ import annotations

import math

from expunge.evaluate.base import Item, Metric, mean_nll


class Probability(Metric):
    """`exp(-mean token loss)` of the answer with its end token; mean over rows."""

    meaning = "How likely the model finds the stored answer, per token (geometric mean)."
    headline = 5
    utility = True
    probe = "probability of the stored answer"
    needs = frozenset({"answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        return math.exp(-mean_nll(item.answer, "an answer"))
