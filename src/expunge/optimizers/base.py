"""The contract of an optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.optim.optimizer import ParamsT

from expunge.core.records import Frozen

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Decay of a running mean."""


class Optimizer(torch.optim.Optimizer):
    """A torch optimizer whose rule updates one parameter at a time.

    Every parameter group holds the options beside `lr` and `weight_decay`, as in torch's own optimizers. Checkpoints
    save what `update` keeps in `state`.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        config: options.
        weight_decay: of groups that name none.
    """

    class Config(Frozen):
        """Options of the optimizer."""

    def __init__(self, params: ParamsT, lr: float, config: Any, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **config.model_dump()})

    @abstractmethod
    def update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move one parameter in place; `state` is empty at its first step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step for every parameter that has a gradient.

        Returns:
            What `closure` gives, called first if there is one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, self.state[parameter], group)
        return loss
