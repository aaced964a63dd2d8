"""Directions in which a run steered hidden states, from its saved tensors or from changed states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.losses.activations import check_layer
from expunge.models.base import LanguageModel

DIRECTION = "direction"
"""What a run calls the direction that it steered to; that of a topic follows after a point."""
DEFAULT_DEPTH = 0.23
"""Where to look in a model that nobody has steered: layer 7 of 32, that of RMU."""


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


def steered_layer(model: LanguageModel, steered: int | None, saved: bool, trained: Sequence[str]) -> int:
    """The block where a run steered, as far as is known; else the one at 0.23 of the depth.

    Args:
        model: any model.
        steered: the layer option of the run's forget loss.
        saved: whether the run saved a direction; it steered at the highest block that it could move.
        trained: names of the parameters that the run could move.
    """
    if steered is not None:
        return steered
    blocks = model.blocks()
    moved = [any(name.startswith(f"{prefix}.") for name in trained) for prefix, _ in blocks]
    if saved and any(moved):
        return max(index for index, could in enumerate(moved) if could)
    return min(round(DEFAULT_DEPTH * len(blocks)), len(blocks) - 1)


def chosen_layer(
    model: LanguageModel,
    chosen: int | None,
    option: str,
    steered: int | None,
    tensors: Mapping[str, Tensor],
    trained: Sequence[str],
) -> int:
    """Index from 0 of the chosen block; by default, of the block where the run steered (`steered_layer`).

    Args:
        model: any model.
        chosen: index, negative from the end. Default: where the run steered.
        option: name of the option in messages.
        steered: layer that the run's forget loss was configured for.
        tensors: tensors that the run saved beside its weights.
        trained: names of the parameters that the run trained.

    Raises:
        UserError: no such block.
    """
    if chosen is None:
        chosen = steered_layer(model, steered, bool(saved_directions(tensors)), trained)
    return check_layer(model, chosen, option)


def mean_shifts(moved: Tensor, topics: Sequence[str | None]) -> Tensor:
    """Mean change of the states of each topic, those without any left out: (R, D) -> (K, D), K 0 where none moved."""
    names = np.array([topic or "" for topic in topics])
    shifts = torch.stack([moved[torch.from_numpy(names == name)].mean(0) for name in np.unique(names)])
    return shifts[shifts.any(dim=1)]
