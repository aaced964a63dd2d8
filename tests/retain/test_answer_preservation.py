"""Answer preservation, worked by hand and on the tiny model."""

import math

import pytest
import torch
from fake_view import FakeView, view_of

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, score_rows
from expunge.retain.answer_preservation import AnswerPreservation

ANSWERS, REFUSALS = [[0, 3, 1], [4, 4]], [[2], [5, 6, 1]]


@pytest.fixture
def setup(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> Setup:
    rows = examples["retain"][:4]
    return Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/retain", 2)


def preservation(setup: Setup, **options: float) -> AnswerPreservation:
    filler = AnswerPreservation(AnswerPreservation.Config(**options))
    filler.prepare(setup)
    return filler


def pair(answer: list[float], refusal: list[float]) -> FakeView:
    view = view_of([answer])
    view.others = view_of([refusal])
    return view


@pytest.mark.parametrize(("beta", "expected"), [(1.0, math.log(1.25)), (0.5, 2 * math.log(1.5))])
def test_value_of_one_row(setup: Setup, beta: float, expected: float) -> None:
    """Answer 1/2, refusal 1/2 * 1/4 = 1/8: odds 1/4; 1/beta ln(1 + (1/4)^beta); W = 1 / (1 + 4^beta)."""
    filler = preservation(setup, beta=beta)
    view = pair([1 / 2], [1 / 2, 1 / 4])
    view.epoch = 1
    assert filler.loss(view).item() == pytest.approx(expected, abs=1e-10)
    assert filler.logs["ap_weight"] == pytest.approx(1 / (1 + 4**beta), abs=1e-10)
    assert view.asked == (4,)


def test_equal_odds_give_ln_2_over_beta_and_half_the_weight(setup: Setup) -> None:
    """6.9315 at beta 0.1."""
    filler = preservation(setup)
    assert filler.loss(pair([1 / 8], [1 / 2, 1 / 4])).item() == pytest.approx(10 * math.log(2), abs=1e-10)
    assert filler.logs["ap_weight"] == pytest.approx(0.5, abs=1e-10)


def test_only_the_odds_count(setup: Setup) -> None:
    """Both halved: no absolute anchor, as the method has none."""
    first, second = (preservation(setup).loss(view).item() for view in (pair([1 / 2], [0.1]), pair([1 / 4], [0.05])))
    assert first == pytest.approx(second, abs=1e-10)
    assert first > 0


def test_means_over_tokens_weigh_short_and_long_alike(setup: Setup) -> None:
    """Answer 1/4 1/4 1/4, refusal 1/2: sums prefer the refusal by ln 32, token means by ln 2.

    Mean answer length 6 and beta 1/6 make an effective beta of 1: ln(1 + 2), W = 2/3.
    """
    sequences = [Encoded(tuple(range(2 + length)), 2) for length in (4, 8)]
    rows = setup.rows[:2]
    filler = AnswerPreservation(AnswerPreservation.Config(beta=1 / 6, length_normalised=True))
    filler.prepare(Setup(setup.model, rows, sequences, "s", 1))
    assert filler.loss(pair([1 / 4] * 3, [1 / 2])).item() == pytest.approx(math.log(3), abs=1e-10)
    assert filler.logs["ap_weight"] == pytest.approx(2 / 3, abs=1e-10)


def summed(logits: torch.Tensor, labels: list[list[int]]) -> torch.Tensor:
    """(B,) log-probability of each answer."""
    logp = torch.log_softmax(logits, -1)
    flat = torch.tensor([label for answer in labels for label in answer])
    return torch.stack([part.sum() for part in logp[range(len(flat)), flat].split([len(answer) for answer in labels])])


def test_gradient_is_the_weighted_difference(setup: Setup) -> None:
    """Mean of W grad(S(refusal) - S(answer)), W = 1 / (1 + (p(answer) / p(refusal))^beta)."""
    beta = 0.3
    generator = torch.Generator().manual_seed(0)
    answer = torch.randn(5, 7, generator=generator, dtype=torch.float64).requires_grad_()
    refusal = torch.randn(4, 7, generator=generator, dtype=torch.float64).requires_grad_()
    view = FakeView(answer, ANSWERS)
    view.others = FakeView(refusal, REFUSALS)
    filler = preservation(setup, beta=beta)
    found = torch.autograd.grad(filler.loss(view), (answer, refusal))
    difference = summed(refusal, REFUSALS) - summed(answer, ANSWERS)
    weight = 1 / (1 + (-difference.detach()).exp() ** beta)
    wanted = torch.autograd.grad((weight * difference).mean(), (answer, refusal))
    assert weight.std() > 0.1
    assert filler.logs["ap_weight"] == pytest.approx(weight.mean().item(), abs=1e-10)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("length_normalised", [False, True])
def test_one_small_step_raises_answers_above_refusals(setup: Setup, length_normalised: bool) -> None:
    """Shared weights: the step must still raise the mean of S(answer) - S(refusal) that is asked about.

    The taught model prefers every answer, so W and the gradient are small: the step has a length of its own.
    """
    model = setup.model
    filler = preservation(setup, length_normalised=length_normalised)
    refusals = filler._refused.sequences[:4]

    def preference() -> float:
        answers, others = score_rows(model, setup.sequences), score_rows(model, refusals)
        whole = [float(one.sum() - two.sum()) for one, two in zip(answers, others, strict=True)]
        means = [float(one.mean() - two.mean()) for one, two in zip(answers, others, strict=True)]
        return sum(means if length_normalised else whole) / 4

    before = preference()
    model.network.eval()
    loss = filler.loss(Forward(model, collate(setup.sequences, range(4)), RowSet(setup.sequences)))
    parameters = model.trainable()
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-2 * gradient / norm
    assert preference() > before


def test_documents_are_named() -> None:
    with pytest.raises(UserError, match="'report#2'"):
        AnswerPreservation(AnswerPreservation.Config()).check([Example("report#2", text="Some text.")])
