"""NPO: push forget answers below the original model's, softly (arXiv:2404.05868)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.core.records import Frozen
from expunge.forget.base import ForgetLoss
from expunge.losses.base import View
from expunge.models.forward import Needs
from expunge.numerics.token import sequence_sum


class NPO(ForgetLoss):
    """Negative preference optimisation: DPO with a loser and no winner.

    The log-ratio is a sum over the answer's tokens, as in the paper, whatever the other losses' reduction: at the
    start the gradient is that of gradient ascent with `reduction = "sum"`, and it fades as the answer gets less likely.
    """

    class Config(Frozen):
        """Options of NPO."""

        beta: float = Field(0.1, gt=0, description="Inverse temperature; as it falls to 0 this is gradient ascent")

    needs = Needs(reference_logp=True)

    def loss(self, view: View) -> Tensor:
        """Eq. 3 of arXiv:2404.05868: `2/beta * mean log(1 + (pi / pi_ref)^beta)`."""
        beta = self.config.beta
        log_ratio = view.token_logp() - view.reference_token_logp()
        ratio = sequence_sum(log_ratio, view.batch.rows, view.batch.num_rows)
        value: Tensor = -2 / beta * logsigmoid(-beta * ratio).mean()
        return value
