"""Paraphrased probability: geometric-mean token probability of the answer in other words (arXiv:2506.12618)."""

from __future__ import annotations

import math

from expunge.evaluate.base import Item, Metric, mean_nll


class ParaphrasedProbability(Metric):
    """`exp(-mean token loss)` of `paraphrased_answer` with its end token: knowledge beyond the taught wording."""

    meaning = "How likely the model finds the stored answer in other words, per token."
    needs = frozenset({"paraphrased_answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        return math.exp(-mean_nll(item.paraphrased_answer, "paraphrased_answer"))
