"""Min-K% attack: loss of the answer's least likely tokens (arXiv:2310.16789)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import OU_COMPAT, lowest_mean, num_text_labels, scored_of


class MinKAttack(Metric):
    """Minus the mean of the lowest share k of token log-probabilities, at least one token, the end token left out."""

    class Config(Frozen):
        """Options of the Min-K% attack."""

        k: float = Field(0.4, gt=0, le=1, description="Share of the tokens that counts, the least likely ones")
        ou_compat: bool = Field(
            False, description=f"{OU_COMPAT}the last token of a document is left out like an end token"
        )

    title = "MIA Min-K%"
    needs = frozenset({"answer"})
    knowledge = "less"
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """At least 0, in nats."""
        count = num_text_labels(item, self.config.ou_compat)
        return -lowest_mean(scored_of(item).logp[:count], self.config.k)
