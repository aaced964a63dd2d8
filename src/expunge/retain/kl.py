"""KL: keep the original model's own distribution on retain answers (arXiv:2401.06121)."""

from __future__ import annotations

from torch import Tensor

from expunge.losses.base import TokenLossConfig, View
from expunge.losses.divergence import kl
from expunge.losses.token import reduce_tokens
from expunge.models.forward import Needs
from expunge.retain.base import RetainLoss


class KL(RetainLoss):
    """KL(original || current) at the answer positions of retain rows; prompt and padding do not count.

    The original's logits come from its final hidden states, cached once, through a frozen copy of its output matrix:
    exact up to float32 rounding, since both are kept in float32. Memory: that one matrix, where training moves it,
    instead of a second model.
    """

    class Config(TokenLossConfig):
        """Options of the retain KL."""

    needs = Needs(reference_logits=True)

    def loss(self, view: View) -> Tensor:
        """`sum_v p_ref(v) (log p_ref(v) - log p(v))` for each label position, reduced by `reduction`."""
        divergence = kl(view.reference_logits(), view.logits())
        return reduce_tokens(divergence, view.batch.rows, view.batch.num_rows, self.config.reduction)
