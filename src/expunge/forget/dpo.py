"""DPO: prefer a drawn refusal to the forget answer, against the original model (arXiv:2305.18290)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.forget.base import ForgetLoss
from expunge.losses.base import View
from expunge.losses.refusals import RefusalConfig, RefusalLoss
from expunge.models.forward import Needs
from expunge.numerics.token import sequence_sum


class DPO(RefusalLoss, ForgetLoss):
    """Direct preference optimisation with a refusal for the winner and the forget answer for the loser.

    The factor 2 before it is that of NPO, and not of DPO's own paper: at the start every pair has gradient weight 1.
    With `train.forget_labels = "keywords"` the loser is its keyword tokens; the winner is always a whole refusal.
    """

    class Config(RefusalConfig):
        """Options of DPO."""

        beta: float = Field(0.1, gt=0, description="Inverse temperature; larger lets go of a pair sooner")

    needs = Needs(reference_logp=True)

    def loss(self, view: View) -> Tensor:
        """`-2/beta * mean log sigmoid(beta * (R(refusal) - R(answer)))`, R = log pi / pi_ref, summed over tokens.

        The official code of arXiv:2410.08109; its value at the original model is `2 ln 2 / beta`.
        """
        beta = self.config.beta
        winner = self.refusals(view)
        margin = _log_ratio(winner) - _log_ratio(view)
        value: Tensor = -2 / beta * logsigmoid(beta * margin).mean()
        return value


def _log_ratio(view: View) -> Tensor:
    """(B,) log-probability of each answer, less the original model's."""
    return sequence_sum(view.token_logp() - view.reference_token_logp(), view.batch.rows, view.batch.num_rows)
