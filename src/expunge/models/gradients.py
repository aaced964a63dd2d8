"""Gradients of an answer's loss, one weight at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from expunge.core.memory import memory_errors
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.forward import final_hidden
from expunge.numerics.token import token_logp

_NORMS: dict[Literal["1", "2", "inf"], float] = {"1": 1.0, "2": 2.0, "inf": float("inf")}

Use = Callable[[int, Tensor], None]
"""(index of a weight, its gradient) -> nothing; the gradient is freed afterwards."""


def answer_gradient_norms(model: LanguageModel, encoded: Encoded) -> dict[str, float]:
    """Mean over all weight tensors of the norm of the gradient of the mean token loss; weights stay as they are.

    Args:
        model: any model; which of its weights are trainable does not matter, nor is it changed.
        encoded: one row.

    Returns:
        Norm (`1`, `2`, `inf`) -> mean norm.
    """
    weights = [weight for weight in model.base.parameters() if weight.is_floating_point()]
    norms: dict[int, Tensor] = {}

    def use(place: int, gradient: Tensor) -> None:
        wide = gradient.float()
        norms[place] = torch.stack([torch.linalg.vector_norm(wide, order) for order in _NORMS.values()])

    answer_gradients(model, encoded, weights, use)
    means = [float(column.mean()) for column in torch.stack([norms[place] for place in sorted(norms)], 1)]
    return dict(zip(_NORMS, means, strict=True))


def answer_gradients(model: LanguageModel, encoded: Encoded, weights: Sequence[nn.Parameter], use: Use) -> None:
    """Call `use` with the gradients of the mean token loss of one row, if the loss depends on the weight.

    Args:
        model: any model; which of its weights are trainable does not matter, nor is it changed.
        encoded: one row.
        weights: whose gradients are wanted.
        use: called with each.

    Raises:
        MemoryExhausted: a pass back over the row does not fit.
    """
    message = f"out of memory: a pass back over a row of {len(encoded.ids)} tokens does not fit on {model.device}"
    with memory_errors(f"{message}; use shorter texts, a smaller model, or a device with more memory"):
        batch = collate([encoded], [0]).to(model.device)
        with each_gradient(model, weights, use):
            with model.autocast():
                logits = model.head(final_hidden(model, batch))
            loss = -token_logp(logits, batch.labels).mean()
            loss.backward()  # type: ignore[no-untyped-call]


@contextmanager
def each_gradient(model: LanguageModel, weights: Sequence[nn.Parameter], use: Use) -> Iterator[None]:
    """Let backward passes within this block call `use` with each weight's gradient as soon as it is complete.

    No gradient is kept, since all of them together would take as much memory as the weights.

    Args:
        model: any model; which of its weights are trainable, and their gradients, are what they were afterwards.
        weights: whose gradients are wanted; the backward pass reaches no others.
        use: called with each.
    """
    before = [(weight, weight.requires_grad, weight.grad) for weight in model.network.parameters()]
    handles = []

    def hand_over(place: int, weight: Tensor) -> None:
        gradient, weight.grad = weight.grad, None
        assert gradient is not None
        use(place, gradient)

    try:
        for weight, _, _ in before:
            weight.requires_grad_(False)
            weight.grad = None
        for place, weight in enumerate(weights):
            weight.requires_grad_(True)
            hook = partial(hand_over, place)
            handles.append(weight.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for weight, trainable, gradient in before:
            weight.requires_grad_(trainable)
            weight.grad = gradient
