"""HF AdamW by hand and beside torch's AdamW, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from expunge.optimizers.hf_adamw import HFAdamW


def test_two_steps_by_hand() -> None:
    """betas 1/2 and 3/4, eps 1/2, lr .3, gradients 2 and 4.

    Step 1: m = 1, v = 1, correction sqrt(1/4) / (1/2) = 1: .3 / 1.5 = .2 downwards.
    Step 2: m = 2.5, v = 4.75, correction sqrt(7/16) / (3/4).
    """
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = HFAdamW([weight], 0.3, HFAdamW.Config(betas=(0.5, 0.75), eps=0.5))
    weight.grad = torch.full_like(weight, 2.0)
    optimizer.step()
    assert weight.item() == pytest.approx(0.8, abs=1e-12)
    weight.grad = torch.full_like(weight, 4.0)
    optimizer.step()
    second = 0.3 * math.sqrt(7 / 16) / 0.75 * 2.5 / (math.sqrt(4.75) + 0.5)
    assert weight.item() == pytest.approx(0.8 - second, abs=1e-12)


def test_epsilon_weighs_as_eps_over_root_one_minus_beta2_power_t() -> None:
    """torch's AdamW with that epsilon, set anew each step, takes the same steps: 3.2e-5 at t=1, 4.5e-6 at t=50."""
    gradients = torch.randn(50, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e-5
    ours, theirs = (nn.Parameter(torch.ones(20, dtype=torch.float64)) for _ in range(2))
    one = HFAdamW([ours], 1e-2, HFAdamW.Config())
    other = torch.optim.AdamW([theirs], 1e-2, weight_decay=0.0)
    for step, gradient in enumerate(gradients, start=1):
        other.param_groups[0]["eps"] = 1e-6 / math.sqrt(1 - 0.999**step)
        ours.grad = theirs.grad = gradient
        one.step()
        other.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    assert other.param_groups[0]["eps"] == pytest.approx(4.5e-6, abs=1e-7)
    plain = nn.Parameter(torch.ones(20, dtype=torch.float64))
    plain.grad = gradients[0]
    torch.optim.AdamW([plain], 1e-2, eps=1e-6, weight_decay=0.0).step()
    assert (1 - plain).abs().mean() > 2 * 1e-2 * (gradients[0].abs() / (gradients[0].abs() + 3.2e-5)).mean()


def test_decay_comes_after_the_step() -> None:
    """g = 1 and no epsilon make a step of lr = .1, and then the decay: (1 - .1)(1 - .1 * .5)."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    weight.grad = torch.ones_like(weight)
    HFAdamW([weight], 0.1, HFAdamW.Config(eps=1e-15), weight_decay=0.5).step()
    assert weight.item() == pytest.approx(0.9 * 0.95, abs=1e-12)
