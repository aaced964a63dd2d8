"""AP: keep retain answers likelier than a drawn refusal (arXiv:2410.08109)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from expunge.losses.base import Setup, View
from expunge.losses.refusals import RefusalConfig, RefusalLoss, draw_refusal
from expunge.models.forward import RowSet
from expunge.numerics.token import sequence_length, sequence_sum
from expunge.retain.base import RetainLoss


class AnswerPreservation(RefusalLoss, RetainLoss):
    """DPO without a reference on retain rows: the answer wins, a refusal loses.

    Raises the answer and lowers the refusal with one weight `W` (logged as `ap_weight`): near 0 once the model prefers
    the answer, near 1 where it would refuse. A retain row draws its own refusal, or with `paired` takes that of the
    forget row beside it in the step, as the official code does (with `redraw = false`, the same in all epochs). Only
    the difference counts, so that both may fall together. With sums a long answer can stay below a short refusal
    however well it is known; `length_normalised` is for that.
    """

    class Config(RefusalConfig):
        """Options of AP."""

        beta: float = Field(0.1, gt=0, description="Inverse temperature of the preference, per nat of a whole answer")
        paired: bool = Field(
            False,
            description="Take the refusal of the forget row that a retain row is paired with in the step, as in the "
            "official code",
        )
        length_normalised: bool = Field(
            False, description="Compare means over tokens instead of sums, with beta times the mean answer length"
        )

    logged = ("ap_weight",)

    def prepare(self, setup: Setup) -> None:
        """Also take the mean answer length in tokens."""
        if self.config.paired:
            self.check(setup.rows)
            self._setup = setup
        else:
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

    def refusals(self, view: View) -> View:
        """The questions of a view with the refusals of its epoch: the rows' own, or those of their forget rows."""
        if not self.config.paired:
            return super().refusals(view)
        batch, epoch = view.batch, view.epoch if self.config.redraw else 0
        assert len(batch.partners) == batch.num_rows, "training pairs every retain row with a forget row"
        seed = f"{self._setup.seed.partition('/')[0]}/forget"
        texts = [draw_refusal(self._refusals, seed, epoch, partner) for partner in batch.partners]
        rows = [self._setup.rows[index] for index in batch.indices]
        encode = self._setup.model.encoder.answered
        return view.over(RowSet([encode(*pair) for pair in zip(rows, texts, strict=True)]), range(batch.num_rows))

    def _preference(self, view: View) -> Tensor:
        """(B,) S of each row."""
        rows, num_rows = view.batch.rows, view.batch.num_rows
        sums = sequence_sum(view.token_logp(), rows, num_rows)
        return sums / sequence_length(rows, num_rows) if self.config.length_normalised else sums
