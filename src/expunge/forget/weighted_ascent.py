"""WGA: gradient ascent, weighted by how likely each token still is (arXiv:2502.19301)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import TokenLossConfig, View
from expunge.numerics.token import reduce_tokens


class WeightedAscent(ForgetLoss):
    """Gradient ascent that lets go of a token once it has become unlikely.

    The weight carries no gradient: with one, `p^a log p` would change direction below `p = exp(-1/a)`.
    """

    class Config(TokenLossConfig):
        """Options of WGA."""

        alpha: float = Field(1.0, ge=0, description="Exponent of the weight p^alpha; 0 is plain gradient ascent")

    def loss(self, view: View) -> Tensor:
        """Eq. 4 of arXiv:2510.19422: `p^alpha log p` for each token, reduced by `reduction`."""
        logp = view.token_logp()
        weight = (self.config.alpha * logp.detach()).exp()
        return reduce_tokens(weight * logp, view.batch.rows, view.batch.num_rows, self.config.reduction)
