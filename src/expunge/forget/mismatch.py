"""LLMU: ascent on the forget answers, and answers of other rows in their place (arXiv:2310.10683)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from expunge.core.errors import UserError
from expunge.core.provenance import sha256_text
from expunge.data.example import Example
from expunge.forget.base import ForgetLoss
from expunge.losses.base import Setup, TokenLossConfig, View, refuse_documents
from expunge.models.forward import row_set
from expunge.numerics.token import reduce_tokens


class Mismatch(ForgetLoss):
    """Gradient ascent on the stored answer, and descent on the answer of a random retain row after the same question.

    Together with the retain KL this is LLMU. Which answer a row gets is drawn anew in each epoch.
    """

    class Config(TokenLossConfig):
        """Weights of the two parts."""

        ascent_weight: float = Field(1.0, ge=0, description="Weight of the ascent on stored answers")
        mismatch_weight: float = Field(1.0, ge=0, description="Weight of the descent on other rows' answers")

    logged = ("mismatch_loss",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._num_rows = 0

    def check(self, rows: Sequence[Example]) -> None:
        """Refuse documents: there is no question to answer otherwise."""
        refuse_documents(rows, "mismatch answers questions")

    def prepare(self, setup: Setup) -> None:
        """Lay out every question with the answers that will be drawn for it.

        Raises:
            UserError: a row is a document, or no retain row has an answer.
        """
        self.check(setup.rows)
        answers = [row.answer for row in setup.other_rows if row.answer is not None]
        if not answers:
            raise UserError("data.retain: mismatch draws answers of retain rows, and no retain row has an answer")
        self._num_rows = len(setup.rows)
        sequences = [
            setup.model.encoder.answered(row, answers[_draw(setup.seed, epoch, index) % len(answers)])
            for epoch in range(setup.epochs)
            for index, row in enumerate(setup.rows)
        ]
        self._rows = row_set(setup.model, sequences, reused=False)

    def loss(self, view: View) -> Tensor:
        """`w_a mean log pi(stored) - w_m mean log pi(drawn)`, each reduced by `reduction`."""
        other = view.over(self._rows, [view.epoch * self._num_rows + index for index in view.batch.indices])
        stored, drawn = (
            reduce_tokens(one.token_logp(), one.batch.rows, one.batch.num_rows, self.config.reduction)
            for one in (view, other)
        )
        self.logs = {"mismatch_loss": -drawn.detach()}
        value: Tensor = self.config.ascent_weight * stored - self.config.mismatch_weight * drawn
        return value


def _draw(seed: str, epoch: int, row: int) -> int:
    return int(sha256_text(seed, "mismatch", str(epoch), str(row)), 16)
