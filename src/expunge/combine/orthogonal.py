"""Orthogonal: where the two gradients conflict, forget gives up what would undo retain (arXiv:2502.01472)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.combine._products import Products, conflict_logs
from expunge.combine.base import Combine, Step, StepLosses, present
from expunge.core.records import Frozen

Weight = Annotated[float, Field(ge=0)]
Gradients = list[Tensor | None]
"""One for each parameter; None for one that a loss does not reach."""


class Orthogonal(Combine):
    """Projects the forget gradient onto the complement of the retain gradient wherever their cosine is negative.

    A step along the result never raises the retain loss, to first order. It may raise the forget loss, since retain
    weighs more: `step_forget_cosine` is then negative, and `keep_descent` prevents it. Where the gradients agree the
    code's weights all but switch forgetting off; `gradient_conflict` is the share of tensors where they do not.

    Gradients are summed over micro-batches before anything is decided, so that the step is that of one large batch.
    Memory: twice the gradients of the trained weights.
    """

    class Config(Frozen):
        """Weights of both gradients, and where and how they are projected."""

        conflict_weights: tuple[Weight, Weight] = Field(
            (0.8, 1.2), description="Weights of forget and retain gradient where they conflict, after the projection"
        )
        align_weights: tuple[Weight, Weight] = Field(
            (0.1, 1.9), description="Weights of forget and retain gradient where they agree"
        )
        projection_scope: Literal["per_param", "global"] = Field(
            "per_param", description="Decide for each weight tensor, or once for all of them together"
        )
        projection: Literal["forget_only", "symmetric"] = Field(
            "forget_only", description="Project the forget gradient alone, or each off the other"
        )
        retain_weight: float = Field(1.0, gt=0, description="Multiplies the retain loss before all else (alpha)")
        keep_descent: bool = Field(
            False, description="Lower the retain gradient's weight where the step would otherwise raise the forget loss"
        )

    logged = ("gradient_conflict", "gradient_cosine", "step_forget_cosine", "step_retain_cosine", "gradient_norm_ratio")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._forget: Gradients = []
        self._retain: Gradients = []

    def accumulate(self, step: Step) -> StepLosses:
        """Backpropagate each loss separately; combine both when the micro-batches are complete."""
        parameters = step.parameters
        before = [parameter.grad for parameter in parameters]
        forget, self._forget = _backward(step, step.forget, 1.0, self._forget or [None] * len(parameters))
        weight = self.config.retain_weight
        retain, self._retain = _backward(step, step.retain, weight, self._retain or [None] * len(parameters))
        self.logs = {}
        combined: Gradients = [None] * len(parameters)
        if step.is_last:
            combined = self._combined()
            self._forget, self._retain = [], []
        for parameter, there, gradient in zip(parameters, before, combined, strict=True):
            parameter.grad = gradient if there is None else there if gradient is None else there + gradient
        return StepLosses(forget, retain)

    @torch.no_grad()
    def _combined(self) -> Gradients:
        """The gradients of the step, written over those of the losses."""
        pairs = list(zip(self._forget, self._retain, strict=True))
        products = Products.of(pairs)
        deciding = products.total() if self.config.projection_scope == "global" else products
        first, second = (factor.expand(len(pairs)) for factor in self._factors(deciding))
        self.logs = present(_account(products, deciding, first, second))
        return [
            _sum(forget, one, retain, other)
            for (forget, retain), one, other in zip(pairs, first.unbind(), second.unbind(), strict=True)
        ]

    def _factors(self, products: Products) -> tuple[Tensor, Tensor]:
        """Eq. 12-14 as the two factors of `factor * forget + factor * retain`; the weights are the published code's.

        With `g_F - (dot / retain) g_R` for the projected forget gradient, weights a and b make the factors a and
        `b - a dot / retain`; a symmetric projection adds `-b dot / forget` to the first.
        """
        forget, retain = self.config.conflict_weights
        first = torch.full_like(products.dot, forget)
        second = retain - forget * products.dot / products.retain
        if self.config.projection == "symmetric":
            first = first - retain * products.dot / products.forget
        if self.config.keep_descent:
            second = torch.minimum(second, first * products.forget / -products.dot)
        conflict, (aligned, other) = products.conflict, self.config.align_weights
        return torch.where(conflict, first, aligned), torch.where(conflict, second, other)


def _account(own: Products, deciding: Products, one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """What is worth a curve: means over the tensors that both losses reach, and cosines over all weights together.

    A value that a zero gradient or a zero step has not got is NaN.
    """
    with_forget = (one * own.forget + other * own.dot).sum()
    with_retain = (one * own.dot + other * own.retain).sum()
    square = (one**2 * own.forget + 2 * one * other * own.dot + other**2 * own.retain).sum()
    forget, retain = own.forget.sum(), own.retain.sum()
    ratio = (forget / retain).sqrt()
    return {
        **conflict_logs(own, deciding),
        "step_forget_cosine": with_forget / (forget * square).sqrt(),
        "step_retain_cosine": with_retain / (retain * square).sqrt(),
        "gradient_norm_ratio": torch.where((retain != 0) & (square > 0), ratio, torch.nan),
    }


def _backward(step: Step, loss: Callable[[], Tensor], weight: float, gradients: Gradients) -> tuple[Tensor, Gradients]:
    """Value of a loss, and its weighted gradients added to others, which replace `.grad` meanwhile."""
    for parameter, gradient in zip(step.parameters, gradients, strict=True):
        parameter.grad = gradient
    value = loss()
    step.backward(weight * value)
    return value.detach(), [parameter.grad for parameter in step.parameters]


def _sum(first: Tensor | None, factor: Tensor, second: Tensor | None, other: Tensor) -> Tensor | None:
    """`factor * first + other * second`, written over one of them; None is zero."""
    if first is None:
        return None if second is None else second.mul_(other)
    first.mul_(factor)
    return first if second is None else first.addcmul_(second, other.to(second))
