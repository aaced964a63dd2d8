"""NLL: keep training on the retain answers (arXiv:2401.06121)."""

from __future__ import annotations

from torch import Tensor

from expunge.losses.base import TokenLossConfig, View
from expunge.numerics.token import reduce_tokens
from expunge.retain.base import RetainLoss


class NLL(RetainLoss):
    """Negative log-likelihood of the retain answers: gradient descent, as in GradDiff."""

    class Config(TokenLossConfig):
        """Options of the retain NLL."""

    def loss(self, view: View) -> Tensor:
        """Mean of `-log pi(answer token)`, reduced by `reduction`."""
        return -reduce_tokens(view.token_logp(), view.batch.rows, view.batch.num_rows, self.config.reduction)
