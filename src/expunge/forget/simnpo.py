"""SimNPO: NPO without a reference, by length-normalised likelihood (arXiv:2410.07163)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.core.records import Frozen
from expunge.forget.base import ForgetLoss
from expunge.losses.base import View
from expunge.numerics.token import sequence_length, sequence_sum


class SimNPO(ForgetLoss):
    """Pushes the mean token log-probability of a forget answer below `-delta`; needs no reference model."""

    class Config(Frozen):
        """Options of SimNPO."""

        beta: float = Field(4.5, gt=0, description="Inverse temperature")
        delta: float = Field(0.0, ge=0, description="Margin: the answer's mean token loss that counts as forgotten")

    def loss(self, view: View) -> Tensor:
        """`2/beta * mean log(1 + exp(beta * (mean log pi + delta)))`."""
        beta, rows, num_rows = self.config.beta, view.batch.rows, view.batch.num_rows
        mean_logp = sequence_sum(view.token_logp(), rows, num_rows) / sequence_length(rows, num_rows)
        value: Tensor = -2 / beta * logsigmoid(-beta * (mean_logp + self.config.delta)).mean()
        return value
