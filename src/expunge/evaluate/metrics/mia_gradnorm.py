"""Gradient-norm attack: how far one step on the row would move the weights (arXiv:2402.17012)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent, Item, Metric


class GradientNormAttack(Metric):
    """Mean over the weight tensors of the norm of the gradient of the answer's mean token loss, end token aside."""

    class Config(Frozen):
        """Options of the gradient-norm attack."""

        norm: Literal["1", "2", "inf"] = Field("2", description="Which norm of each tensor's gradient")
        end_token: bool = Field(
            False,
            description="Count the loss of the answer's end token too, as version 0.1 did; OpenUnlearning does not",
        )

    title = "MIA gradient norm"
    knowledge = "less"
    opt_in = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.needs = frozenset({"whole_gradient_norms" if config.end_token else "gradient_norms"})

    def value(self, item: Item, split: str) -> float:
        """At least 0."""
        if self.config.norm not in item.gradient_norms:
            raise Absent("no gradient norms of these rows")
        return item.gradient_norms[self.config.norm]
