"""Token log-probabilities and the one reduction that all token losses share."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Reduction = Literal["seq_mean", "sum", "token_mean", "crossed_mean"]


def widen(values: Tensor) -> Tensor:
    """The same in float32, or in what they are if that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def token_logp(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each label, in float32: (N, V), (N,) -> (N,)."""
    return -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


class Prediction(NamedTuple):
    """How confident N next-token distributions are; each field is (N,)."""

    mean: Tensor
    """Expected log-probability of a token drawn from the distribution: minus its entropy, in nats."""
    variance: Tensor
    """Variance of the same."""
    top_logit: Tensor
    """Largest logit."""
    energy: Tensor
    """Log of the sum of the exponentials of the logits."""

    @property
    def entropy(self) -> Tensor:
        """In nats."""
        return -self.mean

    @property
    def top_logp(self) -> Tensor:
        """Log-probability of the most likely token."""
        return self.top_logit - self.energy


def prediction(logits: Tensor) -> Prediction:
    """Statistics of next-token distributions, in float32 or wider: (N, V) -> (N,) each."""
    logits = widen(logits)
    logp = torch.log_softmax(logits, dim=-1)
    probability = logp.exp()
    mean = (probability * logp).sum(-1)
    variance = ((logp - mean[:, None]).square() * probability).sum(-1)
    return Prediction(mean, variance, logits.amax(-1), logits.logsumexp(-1))


def sequence_sum(values: Tensor, rows: Tensor, num_rows: int) -> Tensor:
    """Sum of token values by sequence: (N,), (N,) -> (B,)."""
    return values.new_zeros(num_rows).index_add(0, rows, values)


def sequence_length(rows: Tensor, num_rows: int) -> Tensor:
    """Number of labels of each sequence: (N,) -> (B,)."""
    return rows.new_zeros(num_rows).index_add(0, rows, torch.ones_like(rows))  # bincount would wait for the device


def reduce_tokens(values: Tensor, rows: Tensor, num_rows: int, reduction: Reduction) -> Tensor:
    """One number from token values.

    `seq_mean` averages over the tokens of a sequence, then over sequences: every row counts the same, and so does a
    row split off by gradient accumulation. `sum` adds the tokens of a sequence (the papers' formulas). `token_mean`
    averages over all tokens of the batch (transformers' loss), which lets long answers outweigh short ones.
    `crossed_mean` is the mean sum times the mean inverse length, which OpenUnlearning's RMU computes by dividing a (B,)
    by a (B, 1) tensor: the value of a row depends on its batch.

    Args:
        values: (N,) a value for each label.
        rows: (N,) the sequence of each label.
        num_rows: B.
        reduction: which of them.

    Returns:
        A scalar.
    """
    if reduction == "token_mean":
        return values.mean()
    sums = sequence_sum(values, rows, num_rows)
    if reduction == "seq_mean":
        sums = sums / sequence_length(rows, num_rows)
    if reduction == "crossed_mean":
        sums = sums * (1 / sequence_length(rows, num_rows)).mean()
    return sums.mean()
