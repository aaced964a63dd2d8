"""Max logit: the largest logit at each token of the stored answer (arXiv:2408.06223)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import mean_of, scored_of


class MaxLogit(Metric):
    """Mean over the answer's positions of eq. 23, each after the stored tokens before it.

    The paper looks along greedy answers of 30 tokens instead, as `expunge diagnose confidence` does. A logit also moves
    when all logits are scaled: read it beside `max_probability`.
    """

    needs = frozenset({"answer", "moments"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """Unbounded."""
        return mean_of(scored_of(item).top_logit)
