"""Max probability: of the likeliest token at each place of the stored answer (arXiv:2408.06223)."""

from __future__ import annotations

import math

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import mean_of, scored_of


class MaxProbability(Metric):
    """Mean over the answer's positions, each after the stored tokens before it; the likeliest token may be any."""

    needs = frozenset({"answer", "moments"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In (0, 1]."""
        return mean_of(tuple(math.exp(logp) for logp in scored_of(item).top_logp))
