"""Hidden states of rows, pooled and compared: what diagnostics and attacks read off a model that was steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.losses.activations import HiddenLossConfig, Scope, Site, Tokens, resolve_layer
from expunge.losses.base import Setup
from expunge.losses.token import sequence_length
from expunge.models.base import LanguageModel
from expunge.models.partial import block_output

DIRECTION = "direction"
"""What a run calls the direction that it steered to; that of a topic follows after a point."""
DEFAULT_DEPTH = 0.23
"""Where to look in a model that nobody has steered: layer 7 of 32, that of RMU."""
TOKEN_BUDGET = 1024
"""Padded tokens of one batch: outputs of all blocks are kept meanwhile."""


def saved_directions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Topic -> (D,) unit vector that a run steered to; none if it steered to none.

    Args:
        tensors: what the run saved beside its weights.
    """
    named = {name.partition("."): tensor.float() for name, tensor in tensors.items()}
    return {
        topic: direction / direction.norm()
        for (stem, _, topic), direction in named.items()
        if stem == DIRECTION and direction.dim() == 1
    }


def steered_layer(
    model: LanguageModel, chosen: int | None, steered: int | None, saved: bool, trained: Sequence[str], where: str
) -> int:
    """The block to look at: the chosen one, else where the run steered, else at 0.23 of the depth.

    Args:
        model: any model.
        chosen: index from 0, negative: from the end.
        steered: the layer that the run's forget loss was told to look at.
        saved: whether the run saved a direction; it steered at the highest block that it could move.
        trained: names of the parameters that the run could move.
        where: names the option in messages.

    Raises:
        UserError: no such block.
    """
    blocks = model.blocks()
    if chosen is None:
        chosen = steered
    if chosen is None and saved:
        moved = [any(name.startswith(f"{prefix}.") for name in trained) for prefix, _ in blocks]
        chosen = max((index for index, could in enumerate(moved) if could), default=None)
    if chosen is None:
        chosen = min(round(DEFAULT_DEPTH * len(blocks)), len(blocks) - 1)
    return resolve_layer(model, chosen, where)


def mean_shifts(moved: Tensor, topics: Sequence[str | None]) -> Tensor:
    """Mean change of the states of each topic, those without any left out: (R, D) -> (K, D), K 0 where none moved."""
    names = np.array([topic or "" for topic in topics])
    shifts = torch.stack([moved[torch.from_numpy(names == name)].mean(0) for name in np.unique(names)])
    return shifts[shifts.any(dim=1)]


def site_of(model: LanguageModel, rows: Sequence[Example], layer: int, tokens: Scope) -> tuple[Site, list[Encoded]]:
    """Where to look, as a loss would, and the encoded rows."""
    sequences = [model.encoder.example(row) for row in rows]
    site = Site(HiddenLossConfig(layer=layer, tokens=tokens), Setup(model, rows, sequences, "", 1), "layer")
    return site, sequences


def mean_by_row(values: Tensor, tokens: Tokens) -> Tensor:
    """Mean over each row's tokens: (M, ...) -> (B, ...)."""
    sums = values.new_zeros(tokens.num_rows, *values.shape[1:]).index_add(0, tokens.rows, values)
    length = sequence_length(tokens.rows, tokens.num_rows)
    return sums / length.reshape(-1, *(1 for _ in values.shape[1:]))


@torch.no_grad()
def row_states(model: LanguageModel, rows: Sequence[Example], layer: int, tokens: Scope) -> Tensor:
    """(R, D) float32: the mean over each row's tokens of what a block gives, on the CPU."""
    site, sequences = site_of(model, rows, layer, tokens)
    width = int(model.base.config.get_text_config().hidden_size)
    found = torch.empty(len(sequences), width)
    for indices in by_length([len(row.ids) for row in sequences], TOKEN_BUDGET):
        batch = collate([sequences[index] for index in indices], indices).to(model.device)
        with model.autocast():
            hidden = block_output(model, batch, layer)
        chosen = site.tokens(batch)
        found[indices] = mean_by_row(chosen.of(hidden), chosen).cpu()
    return found
