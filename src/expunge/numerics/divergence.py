"""Divergences between next-token distributions, one value for each position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expunge.numerics.token import widen


def kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(reference || policy) at each position, in float32: (N, V), (N, V) -> (N,)."""
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    policy = torch.log_softmax(logits.float(), dim=-1)
    return torch.nn.functional.kl_div(policy, reference, reduction="none", log_target=True).sum(dim=-1)


def kl_from_uniform(logits: Tensor) -> Tensor:
    """KL(uniform || policy) at each position, `mean_v(-log p_v) - log V`, in nats: (N, V) -> (N,).

    Unbounded; its gradient `p - 1/V` does not vanish while the model is sure of a token.
    """
    logits = widen(logits)
    return torch.logsumexp(logits, dim=-1) - logits.mean(dim=-1) - math.log(logits.shape[-1])


def kl_to_uniform(logits: Tensor) -> Tensor:
    """KL(policy || uniform) at each position, `log V - entropy`, in nats: (N, V) -> (N,).

    At most log V; its gradient `p (log p + entropy)` vanishes where the model is sure of a token.
    """
    logp = torch.log_softmax(widen(logits), dim=-1)
    return (logp.exp() * logp).sum(dim=-1) + math.log(logits.shape[-1])
