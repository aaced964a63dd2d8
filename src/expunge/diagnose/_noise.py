"""Response of blocks to noise in their input (arXiv:2408.06223, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expunge.core.progress import Bar
from expunge.data.batch import Batch, collate
from expunge.data.example import Example
from expunge.diagnose._length import best_coefficient, derivatives
from expunge.diagnose._states import mean_by_row, one_token, outputs_above, site_of
from expunge.losses.activations import Scope, Tokens
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.numerics.intervals import Numbers
from expunge.numerics.token import widen


@dataclass(frozen=True)
class Profile:
    """One model's responses; R rows (1 for a mean vector), S scales, K blocks above the layer, L blocks in all."""

    layer: int
    mean_norm: float
    """Norm of the mean state of the layer."""
    token_norm: float
    """Mean norm of a token's state there."""
    through: Numbers
    """(R, S, K) response of each block above to noise in the layer."""
    local: Numbers
    """(R, S, L - 1) response of the next block to noise in each block but the last."""
    coefficients: dict[str, Numbers]
    """Topic -> (K,) length c* of the direction, as derived from the blocks up to each block above."""


def sensitivity(clean: Tensor, moved: Tensor) -> Tensor:
    """`||g(h + xi) - g(h)||^2 / ||g(h)||^2`: (..., D), (..., D) -> (...)."""
    return (moved - clean).square().sum(-1) / clean.square().sum(-1)


@torch.no_grad()
def profile(
    model: LanguageModel,
    rows: Sequence[Example],
    layer: int,
    tokens: Scope,
    noise: Tensor,
    scales: Sequence[float],
    directions: Mapping[str, Tensor] | None = None,
    bar: Bar | None = None,
) -> Profile:
    """Responses of one model's blocks to noise.

    Args:
        model: any model.
        rows: R rows.
        layer: block whose output is perturbed.
        tokens: tokens that count; the noise is added at all tokens.
        noise: (D,) unit vector.
        scales: length of the noise, relative to the norm of the mean state of the perturbed block.
        directions: topic -> (D,); a single mean state is measured instead of the rows. Default: the rows.
        bar: advanced once per row.
    """
    site, sequences = site_of(model, rows, layer, tokens)
    sizes = [len(row.ids) for row in sequences]

    def batch_of(indices: Sequence[int]) -> Batch:
        return collate([sequences[index] for index in indices], indices).to(model.device)

    sums: list[Tensor] = []
    norms: list[Tensor] = []

    def add(indices: Sequence[int], _: int) -> None:
        batch = batch_of(indices)
        chosen = site.tokens(batch)
        states = torch.stack([chosen.of(hidden) for hidden in _all_outputs(model, batch)], 1)
        found = mean_by_row(states, chosen).sum(0), mean_by_row(states[:, layer].norm(dim=-1), chosen)
        sums.append(found[0])
        norms.append(found[1])

    in_batches(model.budget, model.device, "layers", sizes, add)
    means = torch.stack(sums).sum(0) / len(rows)
    lengths = torch.tensor(scales, device=means.device)[:, None] * means.norm(dim=-1)
    noises = lengths[..., None] * noise.to(means)
    coefficients: dict[str, Numbers] = {}
    if directions is None:
        parts = []
        places: list[int] = []

        def react(indices: Sequence[int], _: int) -> None:
            batch = batch_of(indices)
            parts.append(_reactions(model, batch, site.tokens(batch), _all_outputs(model, batch), noises, layer))
            places.extend(indices)
            if bar is not None:
                bar.advance(len(indices))

        in_batches(model.budget, model.device, "layers", sizes, react)
        order = np.argsort(places)
    else:
        first = torch.zeros(1, dtype=torch.long, device=means.device)
        single = Tokens(first, first, 1)
        parts = [_reactions(model, one_token(model), single, [mean[None, None] for mean in means], noises, layer)]
        order = np.array([0])
        for topic, direction in directions.items():
            of_direction, of_state = derivatives(model, layer, means[layer], [direction.to(means), means[layer]])
            coefficients[topic] = _numpy(best_coefficient(of_direction, of_state))
    through, local = (np.concatenate(found)[order] for found in zip(*parts, strict=True))
    return Profile(layer, float(means[layer].norm()), float(torch.cat(norms).mean()), through, local, coefficients)


def _reactions(
    model: LanguageModel, batch: Batch, tokens: Tokens, hidden: Sequence[Tensor], noises: Tensor, layer: int
) -> tuple[Numbers, Numbers]:
    """(B, S, K) of noise in the layer, and (B, S, L - 1) of noise in each block; hidden L times, noises (S, L, D)."""

    def reaction(start: int, end: int) -> Tensor:
        clean = outputs_above(model, batch, start, hidden[start], end)
        found = []
        for noise in noises[:, start]:
            moved = outputs_above(model, batch, start, widen(hidden[start]) + noise, end)
            ratios = [
                sensitivity(tokens.of(before), tokens.of(after)) for before, after in zip(clean, moved, strict=True)
            ]
            found.append(mean_by_row(torch.stack(ratios, 1), tokens))
        return torch.stack(found, 1)

    last = len(hidden) - 1
    local = torch.cat([reaction(block, block + 1) for block in range(last)], -1)
    return _numpy(reaction(layer, last)), _numpy(local)


def _all_outputs(model: LanguageModel, batch: Batch) -> list[Tensor]:
    return outputs_above(model, batch, -1, None, len(model.blocks()) - 1)


def _numpy(values: Tensor) -> Numbers:
    found: Numbers = values.cpu().double().numpy()
    return found
