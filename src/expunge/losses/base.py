"""What a loss filler is: the contract behind `forget/` and `retain/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen
from expunge.data.batch import Batch
from expunge.losses.token import Reduction


@dataclass(frozen=True)
class Needs:
    """What the trainer must have ready before the first step; nothing else is computed."""

    reference_logp: bool = False
    """Token log-probabilities of the original model."""
    reference_logits: bool = False
    """Logits of the original model, from its cached final hidden states through its frozen head."""


class View(Protocol):
    """One batch as the current model sees it; everything is computed when first asked for, and once."""

    batch: Batch

    def token_logp(self) -> Tensor:
        """(N,) log-probability of each label, float32."""

    def logits(self) -> Tensor:
        """(N, V) logits at the label positions."""

    def reference_token_logp(self) -> Tensor:
        """(N,) the same of the original model, without gradient."""

    def reference_logits(self) -> Tensor:
        """(N, V) logits of the original model, without gradient."""


class Loss(ABC):
    """A filler of the forget or the retain slot. One that draws something random does so in `prepare`."""

    class Config(Frozen):
        """Options, each explained once here: this text is the command line's help."""

    needs: ClassVar[Needs] = Needs()

    def __init__(self, config: Any) -> None:
        self.config = config
        self.logs: dict[str, float] = {}
        """Values of the last `loss` call that are worth a curve."""

    @abstractmethod
    def loss(self, view: View) -> Tensor:
        """The scalar to minimise."""

    def prepare(self, generator: torch.Generator) -> None:  # noqa: B027 - most fillers have nothing to draw
        """Called once before the first step; draws whatever is random."""


class TokenLossConfig(Frozen):
    """Options of every loss that is a reduction over label tokens."""

    reduction: Reduction = Field(
        "seq_mean",
        description="seq_mean: mean over a row's tokens, then over rows; sum: the papers' sums; token_mean: over all",
    )
