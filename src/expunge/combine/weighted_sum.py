"""Weighted sum: `forget_weight * forget + retain_weight * retain` (arXiv:2401.06121)."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import Field
from torch import Tensor

from expunge.combine.base import Combine, Step, StepLosses
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

    def accumulate(self, step: Step) -> StepLosses:
        """Backpropagate each weighted loss."""
        return StepLosses(
            forget=self._stream(step, step.forget, self.config.forget_weight),
            retain=self._stream(step, step.retain, self.config.retain_weight),
        )

    @staticmethod
    def _stream(step: Step, loss: Callable[[], Tensor], weight: float) -> float | None:
        if weight == 0:
            return None
        value = loss()
        step.backward(weight * value)
        return float(value.detach())
