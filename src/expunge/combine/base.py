"""The contract of a combination rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.records import Frozen
from expunge.losses.base import Setup


@dataclass(frozen=True)
class Step:
    """One micro-batch of an optimizer step."""

    forget: Callable[[], Tensor]
    """Computes the scalar forget loss; its graph lives until it is backpropagated."""
    retain: Callable[[], Tensor]
    """The same for retain."""
    backward: Callable[[Tensor], None]
    """Adds the gradient of a scalar to `.grad`, scaled for gradient accumulation."""
    parameters: Sequence[torch.nn.Parameter]
    """The weights that may move."""
    scale: float = 1.0
    """Weight of a micro-batch in the step: one divided by their number."""
    is_last: bool = True
    """Whether the optimizer steps after this micro-batch."""


@dataclass(frozen=True)
class StepLosses:
    """The two losses of a micro-batch, scalars without a graph; None for a stream that was not computed."""

    forget: Tensor | None
    retain: Tensor | None


def present(logs: Mapping[str, float | Tensor | None]) -> dict[str, float | Tensor]:
    """Values of a step without the missing ones: None, and NaN on the CPU.

    NaN on another device is left out by the trainer once it has read the values.
    """
    return {
        name: value
        for name, value in logs.items()
        if value is not None and (not isinstance(value, Tensor) or value.device.type != "cpu" or not value.isnan())
    }


class Combine(ABC):
    """Turns the two losses into what is in `.grad` when the optimizer steps."""

    class Config(Frozen):
        """Options of the rule."""

    logged: tuple[str, ...] = ()
    """Names of the values in `logs`: what `guard.stop_below` and `guard.stop_above` may name besides the losses."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.logs: dict[str, float | Tensor] = {}
        """Values of the last step that are worth a curve. Scalar tensors stay on their device: the trainer reads all
        values of a step at once."""
        self.warnings: list[str] = []
        """What the reader of a report should know before trusting the run; whole sentences."""

    def prepare(self, retain: Setup) -> None:  # noqa: B027 - most rules need nothing
        """Called once before the first step, while the model is still the original one.

        Args:
            retain: the model and the retain rows.

        Raises:
            UserError: these rows or weights are not enough for the rule.
        """

    def project(self, parameter: torch.nn.Parameter, change: Tensor) -> Tensor:
        """The part of a change of a weight, for the forget loss, that the rule allows."""
        return change

    def optimizer(
        self, parameters: Sequence[torch.nn.Parameter], lr: float, weight_decay: float
    ) -> torch.optim.Optimizer | None:
        """An optimizer that the rule cannot do without; None leaves the choice to `train.optimizer`."""
        return None

    @abstractmethod
    def accumulate(self, step: Step) -> StepLosses:
        """Compute the losses and leave their combined gradient added to `.grad`."""
