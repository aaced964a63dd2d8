"""Fine-tuning a model on a few rows, for so many steps, and looking at it in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.forward import Forward
from expunge.models.matrices import block_matrices, share_of_blocks
from expunge.models.merging import merged_names


def tuned(
    model: LanguageModel,
    rows: Sequence[Example],
    steps: int,
    lr: float,
    batch_size: int,
    lora: LoraConfig | None,
    seed: int,
) -> Iterator[int]:
    """Train on the answers of rows with AdamW at a constant rate; gives the number of steps after each.

    Args:
        model: whose network is trained in place.
        rows: K rows, walked through in order again and again.
        steps: how many.
        lr: learning rate.
        batch_size: rows of a step; fewer where there are fewer.
        lora: train this adapter on all matrices of the blocks; None: every weight.
        seed: of the adapter's random factor.
    """
    names = [name for name, _ in model.network.named_parameters()]
    if lora is None:
        model.freeze_but(names)
    else:
        add_lora(model, names, lora, seed)
    optimizer = torch.optim.AdamW(model.trainable(), lr=lr, weight_decay=0.0)
    sequences = [model.encoder.example(row) for row in rows]
    size = min(batch_size, len(sequences))
    with torch.enable_grad():
        for step in range(steps):
            places = [(step * size + place) % len(sequences) for place in range(size)]
            batch = collate([sequences[place] for place in places], places).to(model.device)
            loss = -Forward(model, batch).token_logp().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            yield step + 1


def moved_share(model: LanguageModel) -> float:
    """Share of the weights of the decoder blocks that training moves, themselves or through an adapter."""
    if model.is_adapted:
        return share_of_blocks(model, block_matrices(model).keys() & merged_names(model.network))
    return share_of_blocks(model, [name for name, weight in model.network.named_parameters() if weight.requires_grad])
