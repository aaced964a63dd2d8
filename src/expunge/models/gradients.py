"""How strongly an answer pulls at the weights: norms of its loss's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.losses.token import token_logp
from expunge.models.base import LanguageModel
from expunge.models.forward import final_hidden

_NORMS: dict[Literal["1", "2", "inf"], float] = {"1": 1.0, "2": 2.0, "inf": float("inf")}


def answer_gradient_norms(model: LanguageModel, encoded: Encoded) -> dict[str, float]:
    """Mean over all weight tensors of the norm of the gradient of the mean token loss; weights stay as they are.

    Args:
        model: any model; which of its weights are trainable does not matter, nor is it changed.
        encoded: one row.

    Returns:
        Norm (`1`, `2`, `inf`) -> mean norm.
    """
    weights = [weight for weight in model.base.parameters() if weight.is_floating_point()]
    known = [gradient for gradient in answer_gradients(model, encoded, weights) if gradient is not None]
    return {
        name: float(torch.stack([torch.linalg.vector_norm(gradient, order) for gradient in known]).mean())
        for name, order in _NORMS.items()
    }


def answer_gradients(model: LanguageModel, encoded: Encoded, weights: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Gradient of the mean token loss of one row, float32; None for a weight that the loss does not depend on.

    Args:
        model: any model; which of its weights are trainable does not matter, nor is it changed.
        encoded: one row.
        weights: whose gradients are wanted.
    """
    batch = collate([encoded], [0]).to(model.device)
    trainable = [weight.requires_grad for weight in model.base.parameters()]
    try:
        model.base.requires_grad_(False)
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            with model.autocast():
                logits = model.head(final_hidden(model, batch))
            loss = -token_logp(logits, batch.labels).mean()
            gradients = torch.autograd.grad(loss, list(weights), allow_unused=True)
    finally:
        for weight, was in zip(model.base.parameters(), trainable, strict=True):
            weight.requires_grad_(was)
    return [None if gradient is None else gradient.float() for gradient in gradients]
