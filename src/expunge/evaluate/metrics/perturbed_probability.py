"""Perturbed probability: geometric-mean token probability of the wrong answers (arXiv:2506.12618)."""

from __future__ import annotations

import math

from expunge.core.records import Better
from expunge.evaluate.base import Absent, Item, Metric, mean_nll


class PerturbedProbability(Metric):
    """Mean of `exp(-mean token loss)` over the wrong answers of a row, each with its end token."""

    needs = frozenset({"perturbed_answer"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        if not item.perturbed_answer:
            raise Absent("rows without perturbed_answer")
        return sum(math.exp(-mean_nll(wrong, "")) for wrong in item.perturbed_answer) / len(item.perturbed_answer)

    def better(self, split: str) -> Better:
        """Neither: alone it says nothing of the right answer."""
        return "neither"
