"""KL: keep the original model's own distribution on retain answers (arXiv:2401.06121)."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from expunge.data.batch import Batch
from expunge.losses.base import Setup, TokenLossConfig, View
from expunge.losses.positions import PositionScope, wider_rows
from expunge.models.forward import Needs, RowSet
from expunge.numerics.divergence import kl
from expunge.numerics.token import reduce_tokens
from expunge.retain.base import RetainLoss


class KL(RetainLoss):
    """KL(original || current) at the answer positions of retain rows, or at more of them.

    The original's logits come from its final hidden states, cached once, through a frozen copy of its output matrix:
    exact up to float32 rounding, since both are kept in float32. Memory: that one matrix, where training moves it,
    instead of a second model.

    The code of arXiv:2410.08109 averages over every position of rows padded to 500 tokens (`scope = "padded"`,
    `reduction = "token_mean"`): padding then outweighs the text.
    """

    class Config(TokenLossConfig):
        """Options of the retain KL."""

        scope: PositionScope = Field(
            "answer",
            description="Which next tokens count; padded: all up to padded_length, as in the official code",
        )
        nll_weight: float = Field(0.0, ge=0, description="Weight of the answers' NLL, which is added: SCRUB's gamma")
        padded_length: int = Field(
            500,
            ge=2,
            description="Tokens of a row with scope padded: filled with end tokens without attention, or cut off",
        )

    needs = Needs(reference_logits=True)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._rows: RowSet | None = None

    def prepare(self, setup: Setup) -> None:
        """Lay the rows out anew where more than the answers count.

        Raises:
            UserError: `padded_length` exceeds what the model takes.
        """
        self._rows = wider_rows(setup, self.config, "retain", KL.needs, after_last=True)
        self.needs = Needs() if self._rows is not None else KL.needs

    def num_tokens(self, batch: Batch, epoch: int) -> int:
        """The positions that count."""
        if self._rows is None:
            return super().num_tokens(batch, epoch)
        return sum(len(self._rows.sequences[index].labels) for index in batch.indices)

    def loss(self, view: View) -> Tensor:
        """`sum_v p_ref(v) (log p_ref(v) - log p(v))` for each position, reduced by `reduction`."""
        wide = view if self._rows is None else view.over(self._rows, view.batch.indices)
        divergence = kl(wide.reference_logits(), wide.logits())
        value = reduce_tokens(divergence, wide.batch.rows, wide.batch.num_rows, self.config.reduction)
        if self.config.nll_weight:
            logp = reduce_tokens(view.token_logp(), view.batch.rows, view.batch.num_rows, self.config.reduction)
            value = value - self.config.nll_weight * logp
        return value
