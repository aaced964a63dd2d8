"""Truth probability: share of the right answer against a wrong one of the same form (arXiv:2506.12618)."""

from __future__ import annotations

import math

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._truth import right_and_wrong_loss


class TruthProbability(Metric):
    """`p(right) / (p(right) + p(wrong))`: the truth ratio as knowledge, OpenUnlearning's aggregator `prob_mean`.

    Probabilities as in `truth_ratio`; 0.5: the model cannot tell right from wrong.
    """

    needs = frozenset({"answer", "paraphrased_answer", "perturbed_answer"})
    chance = 0.5
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        right, wrong = right_and_wrong_loss(item)
        return 1 / (1 + math.exp(min(right - wrong, 700.0)))
