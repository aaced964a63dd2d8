"""KL: keep the original model's own distribution on retain answers (arXiv:2401.06121)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from expunge.losses.base import Setup, View
from expunge.losses.positions import PositionsConfig, PositionsLoss
from expunge.models.forward import Needs
from expunge.numerics.divergence import kl
from expunge.numerics.token import reduce_tokens
from expunge.retain.base import RetainLoss


class KL(PositionsLoss, RetainLoss):
    """KL(original || current) at the answer positions of retain rows, or at more of them.

    The original's logits come from its final hidden states, cached once, through a frozen copy of its output matrix:
    exact up to float32 rounding, since both are kept in float32. Memory: that one matrix, where training moves it,
    instead of a second model.

    The code of arXiv:2410.08109 averages over every position of rows padded to 500 tokens (`scope = "padded"`,
    `reduction = "token_mean"`): padding then outweighs the text.
    """

    class Config(PositionsConfig):
        """Options of the retain KL."""

        nll_weight: float = Field(0.0, ge=0, description="Weight of the answers' NLL, which is added: SCRUB's gamma")

    needs = Needs(reference_logits=True)
    after_last = True

    def prepare(self, setup: Setup) -> None:
        """Lay the rows out anew where more than the answers count; the original logits are then theirs."""
        super().prepare(setup)
        self.needs = KL.needs if self._rows is None else Needs()

    def loss(self, view: View) -> Tensor:
        """`sum_v p_ref(v) (log p_ref(v) - log p(v))` for each position, reduced by `reduction`."""
        wide = self.wide(view)
        divergence = kl(wide.reference_logits(), wide.logits())
        value = reduce_tokens(divergence, wide.batch.rows, wide.batch.num_rows, self.config.reduction)
        if self.config.nll_weight:
            logp = reduce_tokens(view.token_logp(), view.batch.rows, view.batch.num_rows, self.config.reduction)
            value = value - self.config.nll_weight * logp
        return value
