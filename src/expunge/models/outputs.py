"""What every block puts out, from one forward pass that stops before the output matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from expunge.data.batch import Batch, by_length, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.forward import TOKEN_BUDGET

Pooling = Literal["last", "mean"]


@torch.no_grad()
def block_outputs(
    model: LanguageModel, sequences: Sequence[Encoded], pooling: Pooling, token_budget: int = TOKEN_BUDGET
) -> Tensor:
    """One vector for each row and block, without the output matrix.

    Args:
        model: any model of L blocks.
        sequences: R encoded rows.
        pooling: the output at a row's last token, or its mean over the row's tokens.
        token_budget: padded tokens of one batch.

    Returns:
        (R, L, D) float32 on the CPU.
    """
    blocks = [block for _, block in model.blocks()]
    rows: list[Tensor] = [torch.empty(0)] * len(sequences)
    for indices in by_length([len(sequence.ids) for sequence in sequences], token_budget):
        batch = collate([sequences[index] for index in indices], indices).to(model.device)
        with _pooled(blocks, _weights(batch, pooling)) as seen, model.evaluating(), model.autocast():
            model.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        for index, row in zip(indices, torch.stack(seen, dim=1), strict=True):
            rows[index] = row
    return torch.stack(rows)


def _weights(batch: Batch, pooling: Pooling) -> Tensor:
    """(B, T) weights of positions, which add up to 1 in a row."""
    mask = batch.attention_mask.float()
    if pooling == "mean":
        return mask / mask.sum(1, keepdim=True)
    last = mask.sum(1).long() - 1
    return nn.functional.one_hot(last, mask.shape[1]).float()


@contextmanager
def _pooled(blocks: Sequence[nn.Module], weights: Tensor) -> Iterator[list[Tensor]]:
    """Within this block of code each decoder block appends its (B, D) weighted output to the list."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        hidden = (output[0] if isinstance(output, tuple) else output).float()
        seen.append(torch.einsum("bt,btd->bd", weights.to(hidden.device), hidden).cpu())

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
