"""KL divergences, worked by hand."""

import math
from collections.abc import Callable

import pytest
import torch

from expunge.numerics.divergence import kl, kl_from_uniform, kl_to_uniform

Divergence = Callable[[torch.Tensor], torch.Tensor]


def test_kl_of_two_tokens_in_the_right_direction() -> None:
    """Reference (1/2, 1/2), policy (1/4, 3/4).

    KL(reference || policy) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3) = 0.1438;
    the other direction would be 1/4 ln(1/2) + 3/4 ln(3/2) = 0.1308.
    """
    half, quarter = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl(half, quarter).item() == pytest.approx(math.log(4 / 3) / 2, abs=1e-6)
    assert kl(quarter, half).item() == pytest.approx(math.log(1 / 2) / 4 + math.log(3 / 2) * 3 / 4, abs=1e-6)


def test_kl_is_zero_for_the_same_distribution_and_positive_otherwise() -> None:
    """Logits count up to a constant: adding 5 to all of them is the same distribution."""
    generator = torch.Generator().manual_seed(0)
    logits, other = torch.randn(2, 64, 50, generator=generator)
    assert kl(logits, logits + 5).abs().max() < 1e-5
    assert kl(logits, other).min() > 0.1


def test_kl_gradient_is_policy_minus_reference() -> None:
    """d/dz KL(r || softmax z) = p - r = (1/4 - 1/2, 3/4 - 1/2); a gradient of 0 needs p = r."""
    logits = torch.tensor([[0.25, 0.75]]).log().requires_grad_()
    kl(torch.tensor([[0.5, 0.5]]).log(), logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist()[0] == pytest.approx([-0.25, 0.25], abs=1e-6)


def test_kl_of_confident_bfloat16_logits_is_finite() -> None:
    """A probability that underflows to 0 must give 0 log 0 = 0, not NaN; KL((1, 0) || (0, 1)) = 200 nats here."""
    sure, opposite = torch.tensor([[200.0, 0.0]]).bfloat16(), torch.tensor([[0.0, 200.0]]).bfloat16()
    assert kl(sure, opposite).item() == pytest.approx(200.0)


def some_logits() -> torch.Tensor:
    return 3 * torch.randn(4, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("divergence", [kl_from_uniform, kl_to_uniform])
def test_divergence_from_uniform_is_zero_there_positive_elsewhere_and_blind_to_a_shift(divergence: Divergence) -> None:
    flat = torch.full((2, 9), 1.7, dtype=torch.float64)
    torch.testing.assert_close(divergence(flat), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (divergence(some_logits()) > 0.1).all()
    torch.testing.assert_close(divergence(some_logits() + 40), divergence(some_logits()), rtol=0, atol=1e-10)


def test_divergences_from_uniform_by_their_formulas_and_gradients() -> None:
    """Values `mean(-log p) - log V` and `log V - H`; gradients `p - 1/V` and `p (log p + H)`."""
    logits = some_logits().requires_grad_()
    logp = torch.log_softmax(logits, -1).detach()
    entropy = -(logp.exp() * logp).sum(-1)
    values = {kl_from_uniform: -logp.mean(-1) - math.log(9), kl_to_uniform: math.log(9) - entropy}
    gradients = {kl_from_uniform: logp.exp() - 1 / 9, kl_to_uniform: logp.exp() * (logp + entropy[:, None])}
    for divergence, expected in values.items():
        found = divergence(logits)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        (gradient,) = torch.autograd.grad(found.sum(), logits)
        torch.testing.assert_close(gradient, gradients[divergence], rtol=0, atol=1e-10)
    assert (values[kl_to_uniform] <= math.log(9)).all()
    assert (values[kl_from_uniform] - values[kl_to_uniform]).abs().min() > 1e-3
