"""Divergences between next-token distributions, one value for each position."""

from __future__ import annotations

import torch
from torch import Tensor


def kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(reference || policy) at each position, in float32: (N, V), (N, V) -> (N,)."""
    reference = torch.log_softmax(reference_logits.float(), dim=-1)
    policy = torch.log_softmax(logits.float(), dim=-1)
    return torch.nn.functional.kl_div(policy, reference, reduction="none", log_target=True).sum(dim=-1)
