"""NPO, worked by hand and against gradient ascent."""

import math

import pytest
import torch
from fake_view import FakeView, view_of
from torch import Tensor

from expunge.forget.gradient_ascent import GradientAscent
from expunge.forget.npo import NPO

LABELS = [[0, 3, 1], [4, 4]]


def random_logits(seed: int) -> Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: NPO | GradientAscent, logits: Tensor, reference: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss.loss(FakeView(logits, LABELS, reference)), logits)[0]


def npo(beta: float) -> NPO:
    return NPO(NPO.Config(beta=beta))


ASCENT = GradientAscent(GradientAscent.Config(reduction="sum"))


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 2 * math.log(1.25)), (0.5, 4 * math.log(1.5))])
def test_value_of_one_answer(beta: float, expected: float) -> None:
    """Answer 1/2 * 1/4 = 1/8 now, 2/3 * 3/4 = 1/2 at the start: ratio 1/4.

    2/beta ln(1 + (1/4)^beta): beta 1 gives 2 ln 1.25; beta 1/2 gives 4 ln(1 + 1/2).
    """
    view = view_of([[1 / 2, 1 / 4]], [[2 / 3, 3 / 4]])
    assert npo(beta).loss(view).item() == pytest.approx(expected, abs=1e-10)


def test_rows_are_averaged_after_the_logarithm() -> None:
    """Ratios 1/4 and 1 at beta 1: 2 (ln 1.25 + ln 2) / 2 = ln 2.5, where pooled rows would give 2 ln(1 + 1/4)."""
    view = view_of([[1 / 8], [1 / 2]], [[1 / 2], [1 / 2]])
    assert npo(1.0).loss(view).item() == pytest.approx(math.log(2.5), abs=1e-10)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_at_the_reference_it_is_gradient_ascent_on_sums(beta: float) -> None:
    """Ratio 1: value 2 ln 2 / beta (13.8629 at 0.1), gradient weight 2 sigmoid(0) = 1."""
    logits = random_logits(0)
    loss = npo(beta).loss(FakeView(logits, LABELS, logits))
    assert loss.item() == pytest.approx(2 * math.log(2) / beta, abs=1e-10)
    torch.testing.assert_close(
        gradient(npo(beta), logits, logits), gradient(ASCENT, logits, logits), rtol=0, atol=1e-10
    )


def test_small_beta_tends_to_gradient_ascent_anywhere() -> None:
    logits, reference = random_logits(0), random_logits(1)
    wanted = gradient(ASCENT, logits, reference)
    torch.testing.assert_close(gradient(npo(1e-11), logits, reference), wanted, rtol=0, atol=1e-10)
    assert (gradient(npo(1.0), logits, reference) - wanted).abs().max() > 1e-2


def test_gradient_fades_as_the_answer_becomes_unlikely() -> None:
    """Weight 2 r^beta / (1 + r^beta): ratio 1/4 at beta 1 gives 2/5; the label's logit gets 2/5 (1 - 1/8) = 0.35."""
    logits = torch.tensor([[1 / 8, 7 / 8]], dtype=torch.float64).log().requires_grad_()
    reference = torch.tensor([[1 / 2, 1 / 2]], dtype=torch.float64).log()
    (found,) = torch.autograd.grad(npo(1.0).loss(FakeView(logits, [[0]], reference)), logits)
    assert found.tolist()[0] == pytest.approx([0.35, -0.35], abs=1e-10)
