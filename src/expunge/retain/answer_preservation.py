"""AP: keep retain answers likelier than a drawn refusal (arXiv:2410.08109)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from expunge.losses.base import Setup, View
from expunge.losses.refusals import RefusalConfig, RefusalLoss
from expunge.losses.token import sequence_length, sequence_sum
from expunge.retain.base import RetainLoss


class AnswerPreservation(RefusalLoss, RetainLoss):
    """DPO without a reference on retain rows: the answer wins, a refusal loses.

    Raises the answer and lowers the refusal with one weight `W` (logged as `ap_weight`): near 0 once the model prefers
    the answer, near 1 where it would refuse. Only the difference counts, so that both may fall together. With sums a
    long answer can stay below a short refusal however well it is known; `length_normalised` is for that.
    """

    class Config(RefusalConfig):
        """Options of AP."""

        beta: float = Field(0.1, gt=0, description="Inverse temperature of the preference, per nat of a whole answer")
        length_normalised: bool = Field(
            False, description="Compare means over tokens instead of sums, with beta times the mean answer length"
        )

    logged = ("ap_weight",)

    def prepare(self, setup: Setup) -> None:
        """Also take the mean answer length in tokens."""
        super().prepare(setup)
        self._mean_length = sum(len(sequence.labels) for sequence in setup.sequences) / len(setup.sequences)

    def loss(self, view: View) -> Tensor:
        """`1/beta * mean log(1 + exp(beta * (S(refusal) - S(answer))))`, S = log pi summed over tokens.

        The official code of arXiv:2410.08109. Gradient (its Eq. 10): mean of `W * grad(S(refusal) - S(answer))` with
        `W = sigmoid(beta * (S(refusal) - S(answer)))`. `length_normalised` is our addition.
        """
        beta = self.config.beta * (self._mean_length if self.config.length_normalised else 1)
        refusals = self.refusals(view)
        excess = beta * (self._preference(refusals) - self._preference(view))
        self.logs["ap_weight"] = excess.detach().sigmoid().mean()
        value: Tensor = softplus(excess).mean() / beta
        return value

    def _preference(self, view: View) -> Tensor:
        """(B,) S of each row."""
        rows, num_rows = view.batch.rows, view.batch.num_rows
        sums = sequence_sum(view.token_logp(), rows, num_rows)
        return sums / sequence_length(rows, num_rows) if self.config.length_normalised else sums
