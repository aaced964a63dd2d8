"""The contract of a combination rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.records import Frozen


@dataclass(frozen=True)
class Step:
    """One micro-batch of one step, as a combination rule sees it."""

    forget: Callable[[], Tensor]
    """Computes the scalar forget loss; its graph lives until it is backpropagated."""
    retain: Callable[[], Tensor]
    """The same for retain."""
    backward: Callable[[Tensor], None]
    """Adds the gradient of a scalar to `.grad`, scaled for gradient accumulation."""
    parameters: Sequence[torch.nn.Parameter]
    """The weights that may move."""


@dataclass(frozen=True)
class StepLosses:
    """The two losses of a micro-batch; None for a stream that was not computed."""

    forget: float | None
    retain: float | None


class Combine(ABC):
    """Turns the two losses into what is in `.grad` when the optimizer steps."""

    class Config(Frozen):
        """Options of the rule."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def accumulate(self, step: Step) -> StepLosses:
        """Compute the losses and leave their combined gradient added to `.grad`."""
