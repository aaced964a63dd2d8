"""Weighted sum: `forget_weight * forget + retain_weight * retain` (arXiv:2401.06121)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from expunge.combine._products import Products, conflict_logs
from expunge.combine.base import Combine, Step, StepLosses, present
from expunge.core.errors import UserError
from expunge.core.records import Frozen


class WeightedSum(Combine):
    """The plain sum of both gradients.

    The streams are backpropagated one after the other: the same gradient as that of the summed loss, with the
    activations of only one stream in memory. A stream of weight 0 is never computed.
    """

    class Config(Frozen):
        """Weights of the two losses."""

        forget_weight: float = Field(1.0, ge=0, description="Weight of the forget loss (gamma)")
        retain_weight: float = Field(1.0, ge=0, description="Weight of the retain loss (alpha)")
        watch_conflict: bool = Field(
            False, description="Log the cosine between the two gradients; keeps two more copies of the gradient"
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.forget_weight == config.retain_weight == 0:
            raise UserError("combine: forget_weight and retain_weight are both 0, so nothing would be trained")
        self.logged = ("gradient_conflict", "gradient_cosine") if config.watch_conflict else ()

    def accumulate(self, step: Step) -> StepLosses:
        """Backpropagate each weighted loss."""
        before = self._gradients(step)
        forget = self._stream(step, step.forget, self.config.forget_weight)
        between = self._gradients(step)
        retain = self._stream(step, step.retain, self.config.retain_weight)
        if self.config.watch_conflict:
            changes = zip(_less(between, before), _less(self._gradients(step), between), strict=True)
            self.logs = present(conflict_logs(Products.of(list(changes))))
        return StepLosses(forget, retain)

    def _gradients(self, step: Step) -> list[Tensor | None]:
        """Copies of what has been added up so far."""
        if not self.config.watch_conflict:
            return []
        return [None if parameter.grad is None else parameter.grad.clone() for parameter in step.parameters]

    @staticmethod
    def _stream(step: Step, loss: Callable[[], Tensor], weight: float) -> Tensor | None:
        if weight == 0:
            return None
        value = loss()
        step.backward(weight * value)
        return value.detach()


def _less(after: Sequence[Tensor | None], before: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [one if other is None or one is None else one - other for one, other in zip(after, before, strict=True)]
