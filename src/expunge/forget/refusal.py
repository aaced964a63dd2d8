"""IDK: answer forget questions with a refusal, drawn anew each epoch (arXiv:2401.06121)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from expunge.data.example import Example
from expunge.forget.base import ForgetLoss
from expunge.losses.base import Setup, TokenLossConfig, View
from expunge.losses.refusals import RefusalConfig, load_refusals, refused, refused_places, require_questions
from expunge.losses.token import reduce_tokens
from expunge.models.forward import row_set


class Refusal(ForgetLoss):
    """Cross-entropy of a refusal after the forget question.

    The stored answer is never looked at: nothing lowers its likelihood but the refusal taking its place. One epoch's
    refusal differs from the next one's, so that the model learns to refuse rather than one sentence.
    """

    class Config(TokenLossConfig, RefusalConfig):
        """Options of IDK."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._refusals = load_refusals(config.refusals)

    def check(self, rows: Sequence[Example]) -> None:
        """Refuse documents: there is no question to refuse.

        Raises:
            UserError: a row is a document.
        """
        require_questions(rows, "forget 'refusal'")

    def prepare(self, setup: Setup) -> None:
        """Lay out every refusal that will be drawn."""
        self.check(setup.rows)
        self._num_rows = len(setup.rows)
        self._refused = row_set(setup.model, refused(setup, self._refusals), reused=False)

    def loss(self, view: View) -> Tensor:
        """Mean of `-log pi(refusal token)`, reduced by `reduction`; arXiv:2410.08109's code has `token_mean`."""
        refusals = view.over(self._refused, refused_places(view, self._num_rows))
        batch = refusals.batch
        return -reduce_tokens(refusals.token_logp(), batch.rows, batch.num_rows, self.config.reduction)
