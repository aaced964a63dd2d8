"""IDK: answer forget questions with a refusal, drawn anew each epoch (arXiv:2401.06121)."""

from __future__ import annotations

from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import TokenLossConfig, View
from expunge.losses.refusals import RefusalConfig, RefusalLoss
from expunge.numerics.token import reduce_tokens


class Refusal(RefusalLoss, ForgetLoss):
    """Cross-entropy of a refusal after the forget question.

    The stored answer is not used: only the refusal lowers its likelihood, by replacing it. One epoch's
    refusal differs from the next one's, so that the model learns to refuse rather than one sentence.
    """

    class Config(TokenLossConfig, RefusalConfig):
        """Options of IDK."""

    def loss(self, view: View) -> Tensor:
        """Mean of `-log pi(refusal token)`, reduced by `reduction`; arXiv:2410.08109's code has `token_mean`."""
        refusals = self.refusals(view)
        batch = refusals.batch
        return -reduce_tokens(refusals.token_logp(), batch.rows, batch.num_rows, self.config.reduction)
