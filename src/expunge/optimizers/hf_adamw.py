"""HF AdamW: AdamW as transformers had it, epsilon added before the bias correction (arXiv:1711.05101)."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen
from expunge.optimizers.base import Beta, Optimizer


class HFAdamW(Optimizer):
    """AdamW of transformers 4, which the RMU code trained with (arXiv:2403.03218); its own weight decay was 0.

    At step t the epsilon weighs as much as eps / sqrt(1 - beta2^t) does in torch's AdamW, 32 times eps at the first
    step, so that early steps on small gradients are shorter. Weight decay is decoupled and comes last.
    """

    class Config(Frozen):
        """Running means and the epsilon."""

        betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="Decay of gradient and of squared gradient")
        eps: float = Field(1e-6, gt=0, description="Added to the root of the uncorrected mean squared gradient")

    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)."""
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        mean, square = state["mean"], state["square"]
        beta1, beta2 = group["betas"]
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        correction = math.sqrt(1 - beta2 ** state["step"]) / (1 - beta1 ** state["step"])
        parameter.addcdiv_(mean, square.sqrt() + group["eps"], value=-group["lr"] * correction)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
