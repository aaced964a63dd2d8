"""Min-K%++ attack: least likely tokens, each relative to the alternatives (arXiv:2404.02936)."""

from __future__ import annotations

import math

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent, Item, Metric
from expunge.evaluate.metrics._answer import OU_COMPAT, lowest_mean, num_text_labels, scored_of

_LEAST_VARIANCE = 1e-6


class MinKPlusPlusAttack(Metric):
    """Minus the mean of the lowest share k of `z = (log p - mean) / sqrt(variance)`, the end token left out.

    Mean and variance are those of log p over the vocabulary under the model's own distribution at that place; a
    variance below 1e-6 counts as that.
    """

    class Config(Frozen):
        """Options of the Min-K%++ attack."""

        k: float = Field(0.4, gt=0, le=1, description="Share of the tokens that counts, those of the lowest z")
        ou_compat: bool = Field(
            False, description=f"{OU_COMPAT}the last token of a document is left out like an end token"
        )

    title = "MIA Min-K%++"
    needs = frozenset({"answer", "moments"})
    knowledge = "less"
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """Any number, in standard deviations."""
        count = num_text_labels(item, self.config.ou_compat)
        scored = scored_of(item)
        if not scored.mean:
            raise Absent("no moments of the token distributions")
        places = zip(scored.logp[:count], scored.mean[:count], scored.variance[:count], strict=True)
        standard = [(logp - mean) / math.sqrt(max(variance, _LEAST_VARIANCE)) for logp, mean, variance in places]
        return -lowest_mean(standard, self.config.k)
