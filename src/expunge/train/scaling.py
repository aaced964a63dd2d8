"""Losses scaled up for float16, whose smallest number is 6e-8: most gradients of a large model are smaller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError

_START = 2.0**16
_INTERVAL = 2000
"""Steps without overflow after which the scale is doubled."""


class LossScaler:
    """Scales each loss, gives back unscaled gradients, and skips a step whose gradients overflowed.

    `torch.amp.GradScaler` unscales once, before the optimizer steps. Here a combination rule compares the gradients of
    two losses before that, so that they are unscaled after every backward pass. The scale is a power of two: scaling
    changes no bit of a float32 gradient. Accelerate's optimizer calls `step` and `update` as those of a GradScaler.
    """

    def __init__(self) -> None:
        self.scale = _START
        self.skipped = 0
        """Number of skipped steps."""
        self._steps = 0
        self._overflow = False
        self._finite: Tensor | None = None

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradient of a loss to `.grad`."""
        there = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if there:
            torch._foreach_mul_(there, self.scale)
        (loss * self.scale).backward()  # type: ignore[no-untyped-call]
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if found:
            torch._foreach_mul_(found, 1 / self.scale)
            finite = torch.stack(list(torch._foreach_norm(found, float("inf")))).isfinite().all()
            self._finite = finite if self._finite is None else self._finite & finite

    def finite(self, like: Tensor) -> Tensor:
        """Whether all gradients since the last step are finite: a scalar tensor of 0 or 1, on its device still."""
        found = like.new_ones(()) if self._finite is None else self._finite.to(like)
        self._finite = None
        return found

    def found(self, finite: bool) -> None:
        """What `finite` turned out to be, before the optimizer is to step."""
        self._overflow = not finite

    def step(self, optimizer: torch.optim.Optimizer, *args: Any) -> None:
        """Let the optimizer step, unless the gradients overflowed."""
        if self._overflow:
            self.skipped += 1
        else:
            optimizer.step(*args)

    def update(self) -> None:
        """Halve the scale after an overflow; double it after many steps without one.

        Raises:
            ExpungeError: gradients overflow although they are not scaled up.
        """
        if not self._overflow:
            self._steps += 1
            if self._steps % _INTERVAL == 0:
                self.scale *= 2
            return
        if self.scale <= 1:
            raise ExpungeError(
                "gradients overflow float16 at any scale; set model.precision = 'float32', or 'bfloat16' if the "
                "device supports it, or try a lower train.lr"
            )
        self.scale /= 2
        self._steps = 0

    def state_dict(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {"scale": self.scale, "steps": self._steps, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore the state of a checkpoint."""
        self.scale, self._steps, self.skipped = state["scale"], int(state["steps"]), int(state["skipped"])
