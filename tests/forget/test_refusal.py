"""IDK, worked by hand and on the tiny model."""

import math
from collections.abc import Callable

import pytest
import torch
from fake_view import FakeView, view_of

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.forget.refusal import Refusal
from expunge.losses.base import Setup
from expunge.losses.refusals import draw_refusal, load_refusals
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, score_rows
from expunge.numerics.token import Reduction

Rows = dict[str, tuple[Example, ...]]


@pytest.fixture
def setup(tiny: LanguageModel, examples: Rows) -> Setup:
    rows = examples["forget"][:4]
    return Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/forget", 2)


class Unseen(FakeView):
    """A view that must not be asked for its own answers."""

    def token_logp(self) -> torch.Tensor:
        raise AssertionError("the stored answers were computed")

    logits = token_logp


@pytest.mark.parametrize(("reduction", "expected"), [("seq_mean", 1.25), ("sum", 2.0), ("token_mean", 4 / 3)])
def test_cross_entropy_of_refusals_of_two_tokens_and_one(setup: Setup, reduction: Reduction, expected: float) -> None:
    """Refusal probabilities 1/2 1/4 | 1/2: losses 1 2 | 1 in units of ln 2; the view's own answers are never asked for.

    seq_mean: (3/2 + 1) / 2 = 5/4. sum: (3 + 1) / 2 = 2. token_mean: 4/3. Rows 0 and 1 of 4 in epoch 1: places 4 and 5.
    """
    filler = Refusal(Refusal.Config(reduction=reduction))
    filler.prepare(setup)
    view = Unseen(torch.zeros(2, 2), [[0], [0]])
    view.others = view_of([[1 / 2, 1 / 4], [1 / 2]])
    view.epoch = 1
    assert filler.loss(view).item() == pytest.approx(expected * math.log(2), abs=1e-10)
    assert view.asked == (4, 5)


def test_two_epochs_teach_two_refusals_and_each_is_what_was_drawn(setup: Setup) -> None:
    """The loss of an epoch is the mean token loss of that epoch's sentences, scored apart."""
    filler = Refusal(Refusal.Config())
    filler.prepare(setup)
    losses = []
    for epoch in range(2):
        sentences = [draw_refusal(load_refusals(), setup.seed, epoch, row) for row in range(4)]
        rows = [
            setup.model.encoder.answer(row.question or "", sentence)
            for row, sentence in zip(setup.rows, sentences, strict=True)
        ]
        wanted = -torch.stack([logp.mean() for logp in score_rows(setup.model, rows)]).mean()
        view = Forward(setup.model, collate(setup.sequences, range(4)), RowSet(setup.sequences), epoch)
        losses.append(filler.loss(view))
        torch.testing.assert_close(losses[-1], wanted, rtol=1e-4, atol=1e-4)
    assert abs(losses[0] - losses[1]) > 1e-2


def test_documents_are_refused_before_and_in_prepare(setup: Setup) -> None:
    filler = Refusal(Refusal.Config())
    document = Example("report#2", text="Some text.")
    calls: list[Callable[[], None]] = [
        lambda: filler.check([document]),
        lambda: filler.prepare(Setup(setup.model, [document], setup.sequences[:1], "s", 1)),
    ]
    for call in calls:
        with pytest.raises(UserError, match="'report#2'"):
            call()
