"""Loss attack: mean token loss of the stored answer; members have a low one (arXiv:1709.01604)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric, mean_nll


class LossAttack(Metric):
    """Mean token loss, in nats, of the answer with its end token."""

    title = "MIA loss"
    needs = frozenset({"answer"})
    knowledge = "less"
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """At least 0."""
        return mean_nll(item.answer, "an answer")
