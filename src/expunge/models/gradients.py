"""How strongly an answer pulls at the weights: norms of its loss's gradient."""

from __future__ import annotations

from typing import Literal

import torch

from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.losses.token import token_logp
from expunge.models.base import LanguageModel

_NORMS: dict[Literal["1", "2", "inf"], float] = {"1": 1.0, "2": 2.0, "inf": float("inf")}


def answer_gradient_norms(model: LanguageModel, encoded: Encoded) -> dict[str, float]:
    """Mean over all weight tensors of the norm of the gradient of the mean token loss; weights stay as they are.

    Args:
        model: any model; which of its weights are trainable does not matter, nor is it changed.
        encoded: one row.

    Returns:
        Norm (`1`, `2`, `inf`) -> mean norm.
    """
    batch = collate([encoded], [0]).to(model.device)
    weights = [weight for weight in model.base.parameters() if weight.is_floating_point()]
    trainable = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            with model.autocast():
                states = model.decoder(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
                ).last_hidden_state
                logits = model.head(states[batch.rows, batch.positions])
            loss = -token_logp(logits, batch.labels).mean()
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    finally:
        for weight, was in zip(weights, trainable, strict=True):
            weight.requires_grad_(was)
    known = [gradient.float() for gradient in gradients if gradient is not None]
    return {
        name: float(torch.stack([torch.linalg.vector_norm(gradient, order) for gradient in known]).mean())
        for name, order in _NORMS.items()
    }
