"""DPO: prefer a drawn refusal to the forget answer, against the original model (arXiv:2305.18290)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.data.example import Example
from expunge.forget.base import ForgetLoss
from expunge.losses.base import Needs, Setup, View
from expunge.losses.refusals import RefusalConfig, load_refusals, refused, refused_places, require_questions
from expunge.losses.token import sequence_sum
from expunge.models.forward import row_set


class DPO(ForgetLoss):
    """Direct preference optimisation with a refusal for the winner and the forget answer for the loser.

    The factor 2 before it is that of NPO, and not of DPO's own paper: at the start every pair has gradient weight 1.
    With `train.forget_labels = "keywords"` the loser is its keyword tokens; the winner is always a whole refusal.
    """

    class Config(RefusalConfig):
        """Options of DPO."""

        beta: float = Field(0.1, gt=0, description="Inverse temperature; larger lets go of a pair sooner")

    needs = Needs(reference_logp=True)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._refusals = load_refusals(config.refusals)

    def check(self, rows: Sequence[Example]) -> None:
        """Refuse documents: there is no question to refuse.

        Raises:
            UserError: a row is a document.
        """
        require_questions(rows, "forget 'dpo'")

    def prepare(self, setup: Setup) -> None:
        """Score every refusal that will be drawn with the original model."""
        self.check(setup.rows)
        self._num_rows = len(setup.rows)
        self._refused = row_set(setup.model, refused(setup, self._refusals), logp=True, reused=False)

    def loss(self, view: View) -> Tensor:
        """`-2/beta * mean log sigmoid(beta * (R(refusal) - R(answer)))`, R = log pi / pi_ref, summed over tokens.

        The official code of arXiv:2410.08109; its value at the original model is `2 ln 2 / beta`.
        """
        beta = self.config.beta
        winner = view.over(self._refused, refused_places(view, self._num_rows))
        margin = _log_ratio(winner) - _log_ratio(view)
        value: Tensor = -2 / beta * logsigmoid(beta * margin).mean()
        return value


def _log_ratio(view: View) -> Tensor:
    """(B,) log-probability of each answer, less the original model's."""
    return sequence_sum(view.token_logp() - view.reference_token_logp(), view.batch.rows, view.batch.num_rows)
