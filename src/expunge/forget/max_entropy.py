"""ME: make the next token on forget rows a uniform guess (arXiv:2410.08109)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import View
from expunge.losses.positions import PositionsConfig, PositionScope, PositionsLoss
from expunge.models.precision import float64
from expunge.numerics.divergence import kl_from_uniform, kl_to_uniform
from expunge.numerics.token import reduce_tokens


class MaxEntropy(PositionsLoss, ForgetLoss):
    """Divergence between the next-token distribution and the uniform one; zero at the uniform one only.

    The paper writes KL(policy || uniform); its code computes KL(uniform || policy), which is why the published strength
    works: the other direction has no gradient where the model is sure. The code's epsilon is left out, since it only
    weakens the gradient of tokens that are already unlikely.

    The official mean over positions is `reduction = "token_mean"`; with `scope = "padded"` all rows have one length, so
    that `seq_mean` is the same. Padding then outweighs the text: on short rows it is most of the positions.
    """

    class Config(PositionsConfig):
        """Options of ME."""

        direction: Literal["u_to_p", "p_to_u"] = Field(
            "u_to_p", description="u_to_p: KL(uniform || policy), the official code; p_to_u: the paper's text"
        )
        scope: PositionScope = Field("question+answer", description=PositionsConfig.model_fields["scope"].description)

    logged = ("entropy", "divergence")

    def loss(self, view: View) -> Tensor:
        """Mean over the scope's positions, reduced by `reduction`; `entropy` and `divergence` are logged in nats."""
        view = self.wide(view)
        logits = view.logits()
        with torch.no_grad():
            self.logs["entropy"] = math.log(logits.shape[-1]) - float64(kl_to_uniform(logits).mean())
        values = (kl_from_uniform if self.config.direction == "u_to_p" else kl_to_uniform)(logits)
        self.logs["divergence"] = values.detach().mean()
        return reduce_tokens(values, view.batch.rows, view.batch.num_rows, self.config.reduction)
