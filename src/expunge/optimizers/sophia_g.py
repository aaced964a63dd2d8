"""Sophia-G: momentum steps clipped by the running squared gradient, as FALCON takes them (arXiv:2305.14342)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen
from expunge.optimizers.base import Beta, Optimizer


class SophiaG(Optimizer):
    """Each weight moves by lr * min(1, |m| / (rho * batch_factor * h)) against the sign of its momentum m.

    Of Sophia this is the variant that the FALCON code (arXiv:2502.01472) takes from a library: the curvature h is a
    running mean of the squared training gradient at every step, where the paper samples labels from the model every
    few steps. For small gradients the steps are signs of the momentum. Weight decay is decoupled and comes first.
    """

    class Config(Frozen):
        """Running means, and where a step is clipped."""

        betas: tuple[Beta, Beta] = Field((0.965, 0.99), description="Decay of momentum and of squared gradient")
        rho: float = Field(0.9, gt=0, description="A step is clipped where momentum exceeds rho * batch_factor * h")
        batch_factor: float = Field(5120, gt=0, description="Scale of h; tokens in a batch of the original training")
        double_momentum: bool = Field(
            True, description="Add each gradient to the momentum twice, as the library does; off: once, as published"
        )

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One clipped step; the first has m = (1 - beta1) g, or (1 - beta1^2) g with double momentum."""
        if not state:
            state["momentum"], state["curvature"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        momentum, curvature = state["momentum"], state["curvature"]
        beta1, beta2 = group["betas"]
        momentum.lerp_(gradient, 1 - (beta1**2 if group["double_momentum"] else beta1))
        curvature.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        limit = curvature * (group["rho"] * group["batch_factor"]) + 1e-15
        parameter.sub_(momentum.sign() * (momentum.abs() / limit).clamp(max=1), alpha=group["lr"])
