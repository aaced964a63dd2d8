"""Normalised probability: share of the right answer among itself and the wrong ones (arXiv:2401.06121)."""

from __future__ import annotations

import math

from expunge.evaluate.base import Absent, Item, Metric, mean_nll


class NormalisedProbability(Metric):
    """`p / (p + sum p_wrong)` with `p = exp(-mean token loss)`: TOFU's probability on real authors and world facts."""

    needs = frozenset({"answer", "perturbed_answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        if not item.perturbed_answer:
            raise Absent("rows without perturbed_answer")
        right = mean_nll(item.answer, "an answer")
        return 1 / (1 + sum(math.exp(min(right - mean_nll(wrong, ""), 700.0)) for wrong in item.perturbed_answer))
