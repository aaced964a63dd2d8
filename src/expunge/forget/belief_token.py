"""BS-T: push down the answer token and the model's own likeliest alternatives (arXiv:2510.19422)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.errors import UserError
from expunge.forget.base import ForgetLoss
from expunge.losses.base import Setup, TokenLossConfig, View
from expunge.models.forward import Needs
from expunge.numerics.token import reduce_tokens, sequence_sum, widen


class BeliefToken(ForgetLoss):
    """Gradient ascent on a soft target: part of it lies on the k tokens that the model itself believes in.

    The beliefs are those of the current model, renormalised, without gradient. Relative to gradient ascent they are
    damped; they are really pushed down only where `weight` exceeds their joint probability, which is logged as
    `belief_mass`. Where that is near 1 the loss is gradient ascent times `1 - weight`: compare with the recipe
    `grad_diff_scaled`.

    With `weighting = "npo"` a row weighs `2 sigmoid(beta (S - S_original))`, S the log-probability of its answer, as in
    the authors' code; with `wga` a token weighs `p^beta` (arXiv:2502.19301). Weights carry no gradient.
    """

    class Config(TokenLossConfig):
        """Options of BS-T."""

        k: int = Field(20, ge=1, description="Likeliest tokens at each position that count as beliefs")
        weight: float = Field(
            0.2, ge=0, le=1, description="Share of the beliefs in the target (lambda); 0 is gradient ascent"
        )
        temperature: float = Field(
            1.0, gt=0, description="Of the beliefs; above 1 the likeliest token can be pushed up instead of down"
        )

        weighting: Literal["none", "npo", "wga"] = Field(
            "none",
            description="Weigh each row by how likely its answer still is beside the original model (npo), or each "
            "token by how likely it still is (wga)",
        )
        beta: float = Field(1.0, ge=0, description="Inverse temperature of npo, exponent of wga")

    logged = ("belief_mass",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.needs = Needs(reference_logp=config.weighting == "npo")

    def prepare(self, setup: Setup) -> None:
        """Check k.

        Raises:
            UserError: more beliefs than tokens.
        """
        size = setup.model.base.config.get_text_config().vocab_size
        if self.config.k > size:
            raise UserError(f"forget.k: {self.config.k} beliefs, but the model's vocabulary has {size} tokens")

    def loss(self, view: View) -> Tensor:
        """Eq. 6: `<t, log pi>` for each label, with t of eq. 5, reduced by `reduction`.

        Since t sums to 1 this is `<t, logits> - logsumexp(logits)`: k + 1 logits, and no target over the vocabulary.
        """
        logits, labels = widen(view.logits()), view.batch.labels[:, None]
        normaliser = torch.logsumexp(logits, dim=-1)
        with torch.no_grad():
            top, beliefs = logits.topk(self.config.k, dim=-1)
            share = self.config.weight * torch.softmax(top / self.config.temperature, dim=-1)
            target = torch.cat([share, torch.full_like(top[:, :1], 1 - self.config.weight)], dim=1)
            self.logs["belief_mass"] = (torch.logsumexp(top, dim=-1) - normaliser).exp().mean()
        chosen = logits.gather(1, torch.cat([beliefs, labels], dim=1))
        values = self._weights(view) * ((target * chosen).sum(dim=1) - normaliser)
        return reduce_tokens(values, view.batch.rows, view.batch.num_rows, self.config.reduction)

    @torch.no_grad()
    def _weights(self, view: View) -> Tensor | float:
        """(N,) weight of each label, or one for all."""
        if self.config.weighting == "none":
            return 1.0
        logp = view.token_logp()
        if self.config.weighting == "wga":
            return torch.exp(self.config.beta * logp)
        rows, num_rows = view.batch.rows, view.batch.num_rows
        ratio = sequence_sum(logp - view.reference_token_logp(), rows, num_rows)
        weights: Tensor = 2 * torch.sigmoid(self.config.beta * ratio)[rows]
        return weights
