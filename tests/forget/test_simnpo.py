"""SimNPO, worked by hand."""

import math

import pytest
import torch
from fake_view import FakeView, view_of

from expunge.forget.simnpo import SimNPO


@pytest.mark.parametrize(
    ("beta", "delta", "expected"), [(1.0, 0.0, 2 * math.log(1.25)), (2.0, math.log(2), math.log(1.25))]
)
def test_value_of_one_answer(beta: float, delta: float, expected: float) -> None:
    """Probabilities 1/2 and 1/8: mean log-probability -2 ln 2, so a geometric mean of 1/4.

    beta 1, delta 0: 2 ln(1 + 1/4). beta 2, delta ln 2: (2/2) ln(1 + exp(2 (-2 ln 2 + ln 2))) = ln(1 + 1/4).
    """
    loss = SimNPO(SimNPO.Config(beta=beta, delta=delta)).loss(view_of([[1 / 2, 1 / 8]]))
    assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_long_and_short_answers_of_the_same_mean_weigh_the_same() -> None:
    """Rows 1/4 and 1/4 1/4 1/4 have the same loss, and each token of the second a third of the first's gradient."""
    logits = torch.tensor([[1 / 4, 3 / 4]] * 4, dtype=torch.float64).log().requires_grad_()
    loss = SimNPO(SimNPO.Config()).loss(FakeView(logits, [[0], [0, 0, 0]]))
    (found,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(2 / 4.5 * math.log(1 + 0.25**4.5), abs=1e-10)
    assert found[0, 0].item() == pytest.approx(3 * found[1, 0].item(), abs=1e-10)
