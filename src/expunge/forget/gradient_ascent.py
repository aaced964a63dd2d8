"""Gradient ascent: lower the likelihood of the forget answers (arXiv:2210.01504)."""

from __future__ import annotations

from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import TokenLossConfig, View
from expunge.numerics.token import reduce_tokens


class GradientAscent(ForgetLoss):
    """The mean log-probability of the forget answers, minimised.

    Unbounded below: without a retain loss and an early stop the model ends in repetition, so the number of steps (or
    the guard) is part of the method.
    """

    class Config(TokenLossConfig):
        """Options of gradient ascent."""

    def loss(self, view: View) -> Tensor:
        """Eq. 1 of arXiv:2510.19422, reduced by `reduction`."""
        return reduce_tokens(view.token_logp(), view.batch.rows, view.batch.num_rows, self.config.reduction)
