"""Adam for two gradients, one of which may move a weight only within a projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Constraint:
    """What the forget gradient may do; shared with the combination rule, which fills `forget` before each step."""

    forget: Mapping[nn.Parameter, Tensor]
    """Projected and clipped forget gradients; the retain gradients are in `.grad`."""
    project: Callable[[nn.Parameter, Tensor], Tensor]
    original: Mapping[nn.Parameter, Tensor]
    """Values that weight decay pulls towards."""
    retain_weight: float
    apart: bool
    """Keep what forgetting did to a weight as a tensor of its own, and project it whole at each step."""


class ProjectedAdam(torch.optim.Optimizer):
    """`W -= lr (Adam(forget) P + retain_weight Adam(retain))`, each Adam with moments of its own.

    Adam divides elementwise, which leads out of the projection; so its result is projected and not only the gradient.
    Weight decay pulls towards the original weights, since decaying the weights themselves would change what they give.
    With `constraint.apart` a weight is `W_0 + V P + R`: V is moved and decayed freely by the forget gradient, R moved
    by the retain gradient, and rounding cannot add up outside the projection.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        lr: float,
        weight_decay: float,
        constraint: Constraint,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "betas": betas, "eps": eps})
        self._constraint = constraint

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move every weight that has a gradient of either kind."""
        assert closure is None, "the gradients of both losses must be there already"
        for group in self.param_groups:
            for parameter in group["params"]:
                forget = self._adam(parameter, "forget", self._constraint.forget.get(parameter), group)
                retain = self._adam(parameter, "retain", parameter.grad, group)
                move = self._move_apart if self._constraint.apart else self._move
                move(parameter, forget, self._constraint.retain_weight * retain, group["lr"], group["weight_decay"])

    def _move(self, parameter: nn.Parameter, forget: Tensor, retain: Tensor, lr: float, decay: float) -> None:
        parameter.lerp_(self._constraint.original[parameter], lr * decay)
        parameter.sub_(self._constraint.project(parameter, forget) + retain, alpha=lr)

    def _move_apart(self, parameter: nn.Parameter, forget: Tensor, retain: Tensor, lr: float, decay: float) -> None:
        original, project = self._constraint.original[parameter], self._constraint.project
        state = self.state[parameter]
        if "free" not in state:
            state["free"] = parameter - original
            state["rest"] = state["free"] - project(parameter, state["free"])
        state["free"].mul_(1 - lr * decay).sub_(forget, alpha=lr)
        state["rest"].sub_(retain, alpha=lr)
        parameter.copy_(original + project(parameter, state["free"]) + state["rest"])

    def _adam(self, parameter: nn.Parameter, name: str, gradient: Tensor | None, group: dict[str, Any]) -> Tensor:
        """Adam's direction for one of the two gradients (arXiv:1412.6980); zeros and no new moments without one."""
        if gradient is None:
            return torch.zeros_like(parameter)
        zeros = {"steps": 0, "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
        state = self.state[parameter].setdefault(name, zeros)
        beta, beta_square = group["betas"]
        state["steps"] += 1
        state["mean"].lerp_(gradient, 1 - beta)
        state["square"].mul_(beta_square).addcmul_(gradient, gradient, value=1 - beta_square)
        mean = state["mean"] / (1 - beta ** state["steps"])
        square = state["square"] / (1 - beta_square ** state["steps"])
        direction: Tensor = mean / (square.sqrt() + group["eps"])
        return direction
