"""WGA, worked by hand and against gradient ascent."""

import math

import pytest
import torch
from fake_view import FakeView, view_of

from expunge.forget.gradient_ascent import GradientAscent
from expunge.forget.weighted_ascent import WeightedAscent
from expunge.numerics.token import Reduction


def test_each_token_is_weighted_by_its_own_probability() -> None:
    """Probabilities 1/2 1/4 | 1/2 at alpha 2: p^2 log2 p = -1/4 -2/16 | -1/4, row means -3/16 and -1/4: -7/32 ln 2."""
    loss = WeightedAscent(WeightedAscent.Config(alpha=2.0)).loss(view_of([[1 / 2, 1 / 4], [1 / 2]]))
    assert loss.item() == pytest.approx(-7 / 32 * math.log(2), abs=1e-10)


@pytest.mark.parametrize("reduction", ["seq_mean", "sum", "token_mean"])
def test_alpha_zero_is_gradient_ascent(reduction: Reduction) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    view = FakeView(logits, [[0, 3, 1], [4, 4]])
    weighted = WeightedAscent(WeightedAscent.Config(alpha=0.0, reduction=reduction)).loss(view)
    plain = GradientAscent(GradientAscent.Config(reduction=reduction)).loss(view)
    found, wanted = (torch.autograd.grad(loss, logits)[0] for loss in (weighted, plain))
    assert weighted.item() == pytest.approx(plain.item(), abs=1e-10)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_weight_carries_no_gradient() -> None:
    """p = 0.01 at alpha 1, below exp(-1/alpha) = 0.37: the label's logit gets p (1 - p) = +0.0099.

    Through the weight it would get p (1 - p) (1 + ln p) = -0.0357, and a step would make the answer likelier.
    """
    logits = torch.tensor([[0.01, 0.99]], dtype=torch.float64).log().requires_grad_()
    loss = WeightedAscent(WeightedAscent.Config(alpha=1.0)).loss(FakeView(logits, [[0]]))
    (found,) = torch.autograd.grad(loss, logits)
    assert found.tolist()[0] == pytest.approx([0.0099, -0.0099], abs=1e-10)
