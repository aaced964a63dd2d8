"""The contract of the losses in `forget/` and `retain/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from expunge.core.errors import UserError
from expunge.core.records import Frozen
from expunge.data.batch import Batch
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.forward import Needs, RowSet
from expunge.models.partial import BlockStates, first_trained_block
from expunge.models.reference_weights import OriginalWeights
from expunge.models.sites import Site
from expunge.numerics.token import Reduction


class TuningConfig(Frozen):
    """Options of whatever compares the model with itself after fine-tuning on the rows of its stream."""

    tuning_epochs: int = Field(5, ge=1, description="Passes over the forget rows in fine-tuning on them")
    tuning_lr: float = Field(1e-5, gt=0, description="Peak learning rate of that fine-tuning")
    tuning_batch_size: int = Field(8, ge=1, description="Rows in a batch of that fine-tuning")
    tuning_schedule: Literal["linear", "constant", "cosine"] = Field(
        "linear", description="Learning rate over that fine-tuning"
    )


@dataclass(frozen=True)
class Setup:
    """What a loss receives once, before any weight has moved."""

    model: LanguageModel
    """Holds the original weights during setup; the same object is trained afterwards."""
    rows: Sequence[Example]
    """The rows of the loss's stream; `Batch.indices` points into them."""
    sequences: Sequence[Encoded]
    """The same rows encoded: what a view of the stream holds."""
    seed: str
    """Names every random draw of this stream, together with e.g. epoch and row."""
    epochs: int
    """Number of passes over the stream."""
    other_rows: Sequence[Example] = ()
    """The rows of the other stream."""
    tune: Callable[[Setup, TuningConfig], OriginalWeights] | None = None
    """Fine-tunes the model on the rows and puts its weights back; see `tuned`."""

    def tuned(self, config: TuningConfig) -> OriginalWeights:
        """The trainable weights after fine-tuning on these rows; the model itself stays as it is.

        Takes as long as training does, and may write checkpoints: to be called in `Loss.start` or `Edit.apply`.
        """
        assert self.tune is not None, "a setup outside of a run cannot fine-tune"
        return self.tune(self, config)

    @cached_property
    def inputs(self) -> BlockStates | None:
        """What enters the lowest trained block on these rows, if the blocks below it are frozen; computed once."""
        first = first_trained_block(self.model)
        return BlockStates(self.model, first, self.sequences) if first else None


Project = Callable[[nn.Parameter, Tensor], Tensor]
"""(parameter, change of it) -> the part of the change that may be made."""


class View(Protocol):
    """Values of the current model for one batch; each is computed on first use, and once."""

    batch: Batch
    epoch: int
    """Passes over the forget rows before this one; 0 in the first."""

    def token_logp(self) -> Tensor:
        """(N,) log-probability of each label, float32."""

    def logits(self) -> Tensor:
        """(N, V) logits at the label positions."""

    def reference_token_logp(self) -> Tensor:
        """(N,) the same of the original model, without gradient."""

    def reference_logits(self) -> Tensor:
        """(N, V) logits of the original model, without gradient."""

    def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[Tensor]:
        """L tensors (B, T, D): outputs of blocks, ascending, or of a part of each; padding included."""

    def reference_hidden(
        self, layers: Sequence[int], site: Site = "hidden", device: torch.device | None = None
    ) -> list[Tensor]:
        """L tensors (B, T, D): the same of the original model, without gradient; on the model's or another device."""

    def over(self, rows: RowSet, indices: Sequence[int]) -> View:
        """The same model on other rows, e.g. on the same questions with other answers."""


class Loss(ABC):
    """A filler of the forget or the retain slot.

    Most losses use the rows of their stream. One that uses others (refusals, samples, whole prompts) makes them in
    `prepare` or when they are due, and reaches them through `view.over`; values of its stream's own view that it does
    not use are never computed.
    """

    class Config(Frozen):
        """Options, each explained once here: this text is the command line's help."""

    slot: ClassVar[str]
    """`forget` or `retain`: the option that messages name."""
    trains: bool = True
    """Whether there is anything to minimise; false only for the filler `none`."""
    needs: Needs = Needs()
    whole_epochs: int = 0
    """A run may stop and resume only after a multiple of this many epochs; 0: after any step. For a loss that keeps,
    between steps, what it made with weights that have moved since."""
    logged: tuple[str, ...] = ()
    """Names of the values in `logs`: what `guard.stop_below` and `guard.stop_above` may name besides the losses."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.logs: dict[str, float | Tensor] = {}
        """Values of the last `loss` call that are worth a curve. Scalar tensors stay on their device: the trainer reads
        all values of a step at once."""
        self.warnings: list[str] = []
        """What the reader of a report should know before trusting the run; whole sentences."""

    @abstractmethod
    def loss(self, view: View) -> Tensor:
        """The scalar to minimise."""

    def size(self, batch: Batch, epoch: int) -> int:
        """What a micro-batch counts in its optimizer step: what its loss is a mean over, rows or tokens.

        Args:
            batch: rows of the stream.
            epoch: in which they are met.
        """
        averages_tokens = getattr(self.config, "reduction", None) == "token_mean"
        return self.num_tokens(batch, epoch) if averages_tokens else batch.num_rows

    def num_tokens(self, batch: Batch, epoch: int) -> int:
        """Tokens that `token_mean` averages over."""
        return len(batch.rows)

    def check(self, rows: Sequence[Example]) -> None:  # noqa: B027 - most fillers take any row
        """Called with the stream's rows before anything heavy happens.

        Raises:
            UserError: a row that this loss has no use for.
        """

    def prepare(self, setup: Setup) -> None:  # noqa: B027 - most fillers need nothing
        """Called once before the first step, while the model is still the original one; `needs` is read after it."""

    def start(self, model: LanguageModel, project: Project) -> None:  # noqa: B027 - most fillers start from the model
        """Called when all that is kept of the original model is there, to move the start of training.

        Args:
            model: the original model.
            project: the part of a change of a weight that the combination rule allows.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What is worth saving beside the weights, e.g. the direction that hidden states were steered to."""
        return {}


def refuse_documents(rows: Sequence[Example], why: str) -> None:
    """Refuse rows without a question.

    Raises:
        UserError: a row is a document; `why` says what the loss does with questions.
    """
    for row in rows:
        if row.text is not None:
            raise UserError(f"row '{row.id}': {why}, and this row is a document")


class TokenLossConfig(Frozen):
    """Options of every loss that is a reduction over label tokens."""

    reduction: Reduction = Field(
        "seq_mean",
        description="seq_mean: mean over a row's tokens, then over rows; sum: the papers' sums; token_mean: over all; "
        "crossed_mean: mean sum times mean inverse length, as in OpenUnlearning's RMU",
    )
