"""Next-token entropy: how undecided the model is at each place of the stored answer (arXiv:2408.06223)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import mean_of, scored_of


class NextTokenEntropy(Metric):
    """Mean over the answer's positions of `-sum p log p` over the vocabulary, in nats.

    Not to be taken for `token_entropy`, which counts the tokens of one generated answer.
    """

    needs = frozenset({"answer", "moments"})
    knowledge = "less"
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """From 0 to the log of the vocabulary's size."""
        return -mean_of(scored_of(item).mean)
