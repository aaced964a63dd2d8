"""Sophia-G by hand, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.optimizers.sophia_g import SophiaG


def stepped(gradients: list[Tensor], lr: float = 0.1, decay: float = 0.0, **options: Any) -> tuple[Tensor, Any]:
    """Where weights that start at 1 stand after steps on these gradients, and the optimizer's state."""
    weight = nn.Parameter(torch.ones_like(gradients[0]))
    optimizer = SophiaG([weight], lr, SophiaG.Config(**options), weight_decay=decay)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
    return weight.detach(), optimizer.state[weight]


def test_first_step_by_hand() -> None:
    """g = 1: m = 1 - .965^2 = .068775, h = 1 - .99 = .01, so a step of lr * .068775 / (.9 * 5120 * .01 = 46.08)."""
    weight, state = stepped([torch.ones(1, dtype=torch.float64)])
    assert state["momentum"].item() == pytest.approx(0.068775, abs=1e-12)
    assert state["curvature"].item() == pytest.approx(0.01, abs=1e-12)
    assert 1 - weight.item() == pytest.approx(0.1 * 0.068775 / 46.08, abs=1e-12)


def test_second_step_by_hand() -> None:
    """Gradients 1, -2, momentum once, betas 1/2: m = 1/2, then 1/4 - 1 = -3/4; h = 1/2, then 1/4 + 2 = 9/4.

    With rho * factor = 2 the first step is clipped at (1/2) / 1 and the second at (3/4) / (9/2) = 1/6.
    """
    gradients = [torch.tensor([value], dtype=torch.float64) for value in (1.0, -2.0)]
    options = {"betas": (0.5, 0.5), "rho": 0.5, "batch_factor": 4.0, "double_momentum": False}
    weight, _ = stepped(gradients, lr=0.6, **options)
    assert weight.item() == pytest.approx(1 - 0.6 * 0.5 + 0.6 / 6, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_no_weight_moves_farther_than_the_rate(scale: float) -> None:
    gradients = torch.randn(20, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    before = torch.ones(500, dtype=torch.float64)
    for count in range(1, 21, 5):
        weight, _ = stepped(list(gradients[:count]))
        previous, _ = stepped(list(gradients[: count - 1])) if count > 1 else (before, None)
        assert (weight - previous).abs().max() <= 0.1 * (1 + 1e-12)


@pytest.mark.parametrize(("scale", "share"), [(1e-6, 0.98), (1e-5, 0.81), (3e-5, 0.46), (1e-3, 0.0)])
def test_tiny_gradients_make_steps_of_signs(scale: float, share: float) -> None:
    """Share of weights that move by the whole rate once the running means have settled, on Gaussian gradients.

    Then m is normal with deviation s * sqrt((1 - b) / (1 + b)), b = .965^2, i.e. .189 s, and h is s^2: the step is
    whole where |m| > 4608 s^2, so with probability 2 (1 - Phi(24380 s)); the running h blurs that a little.
    """
    noise = torch.randn(500, 2000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    weight = nn.Parameter(torch.ones(2000, dtype=torch.float64))
    optimizer = SophiaG([weight], 0.1, SophiaG.Config())
    for gradient in noise:
        before = weight.detach().clone()
        weight.grad = gradient
        optimizer.step()
    whole = (weight - before).abs() > 0.1 * (1 - 1e-9)
    assert float(whole.double().mean()) == pytest.approx(share, abs=0.04)


def test_decay_comes_beside_the_gradient() -> None:
    """A zero gradient leaves the decay alone: 1 - .1 * .5."""
    assert stepped([torch.zeros(1, dtype=torch.float64)], decay=0.5)[0].item() == pytest.approx(0.95)


def test_a_weight_without_gradient_stays() -> None:
    weight = nn.Parameter(torch.ones(3))
    SophiaG([weight], 0.1, SophiaG.Config(), weight_decay=0.5).step()
    assert torch.equal(weight, torch.ones(3))


def test_state_and_options_survive_saving() -> None:
    """An optimizer of other options, given the saved state, goes on as the first would have."""
    gradients = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    one, other = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    first = SophiaG([one], 0.1, SophiaG.Config(rho=0.01))
    for gradient in gradients[:2]:
        one.grad = gradient
        first.step()
    second = SophiaG([other], 0.5, SophiaG.Config())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    other.data.copy_(one.data)
    one.grad = other.grad = gradients[2]
    first.step()
    second.step()
    assert torch.equal(one, other)
