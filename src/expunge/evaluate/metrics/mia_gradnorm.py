"""Gradient-norm attack: how far one step on the row would move the weights (arXiv:2402.17012)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent, Item, Metric


class GradientNormAttack(Metric):
    """Mean over the weight tensors of the norm of the gradient of the answer's mean token loss; members are flat."""

    class Config(Frozen):
        """Options of the gradient-norm attack."""

        norm: Literal["1", "2", "inf"] = Field("2", description="Which norm of each tensor's gradient")

    needs = frozenset({"gradient_norms"})
    knowledge = "less"
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """At least 0."""
        if self.config.norm not in item.gradient_norms:
            raise Absent("no gradient norms of these rows")
        return item.gradient_norms[self.config.norm]
