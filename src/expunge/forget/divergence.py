"""SCRUB: drive the model away from the original one on forget rows (arXiv:2302.09880)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import TokenLossConfig, View
from expunge.models.forward import Needs
from expunge.numerics.divergence import kl
from expunge.numerics.token import reduce_tokens


class Divergence(ForgetLoss):
    """The negative of KL(original || current) at the answer positions of forget rows: the student flees its teacher.

    Unbounded below. SCRUB takes these steps in its first epochs only (`max_epochs`); there they alternate with steps on
    the retain loss, here both share a step. With KL and NLL on retain rows this is its objective.
    """

    class Config(TokenLossConfig):
        """How long the student flees."""

        max_epochs: int = Field(0, ge=0, description="Epochs in which this loss counts, from the first; 0: all")

    needs = Needs(reference_logits=True)
    logged = ("divergence",)

    def loss(self, view: View) -> Tensor:
        """`-sum_v p_0(v) (log p_0(v) - log p(v))` at each label position, reduced by `reduction`."""
        batch = view.batch
        value = reduce_tokens(
            kl(view.reference_logits(), view.logits()), batch.rows, batch.num_rows, self.config.reduction
        )
        self.logs = {"divergence": value.detach()}
        counts = not self.config.max_epochs or view.epoch < self.config.max_epochs
        return -value if counts else 0.0 * value
