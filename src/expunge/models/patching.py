"""Running a row with what another model's block gave in the place of this one's, for every block in turn.

Such a run is the plain one up to its block and up to the first place that is replaced. So it starts above the block,
reads the keys and values of earlier places from the plain run, and shares the blocks above with the runs of other
blocks: one pass upwards, in which every block's runs join the batch as it is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from expunge.data.encode import Encoded
from expunge.losses.token import token_logp
from expunge.models.base import LanguageModel
from expunge.models.cache import earlier
from expunge.models.hooks import hand_through, leaving, leaving_with, replaced_forward

_TOKEN_BUDGET = 2048
"""Tokens of one pass with states replaced."""
_HEAD_BUDGET = 256
"""Places at which the output matrix is applied at a time."""


class Patched(NamedTuple):
    """Mean log-probability of a row's labels, in nats."""

    plain: float
    patched: Tensor
    """(S, L) with the states of each of S sources in the place of each block's own, float32 on the CPU."""


@torch.no_grad()
def patch(model: LanguageModel, row: Encoded, sources: Sequence[Tensor], token_budget: int = _TOKEN_BUDGET) -> Patched:
    """What a model says of a row's labels when one block gives what another model's did where they are predicted.

    Args:
        model: any model of L blocks.
        row: T tokens with N labels.
        sources: for each of S other models, (L, N, D) what its blocks gave at the places that predict the labels.
        token_budget: tokens of one pass.
    """
    device = model.device
    read = torch.tensor(row.ids[: max(row.places)], device=device)
    labels = torch.tensor(row.labels, device=device)
    first = min(row.places) - 1
    places = torch.tensor(row.places, device=device) - 1 - first
    states = torch.stack([source.to(device) for source in sources], dim=1)
    blocks = [block for _, block in model.blocks()]
    cache = DynamicCache()
    outputs: list[Tensor] = []
    with model.evaluating(), model.autocast():
        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(leaving(block, lambda output: outputs.append(output[0, first:].clone())))
            hidden = _decode(model, read, cache, 0)
        plain = _mean_logp(model, hidden[:, places + first], labels)
        size = max(1, token_budget // (len(sources) * (len(read) - first)))
        found = []
        for start in range(0, len(blocks), size):
            group = range(start, min(start + size, len(blocks)))
            replaced = [_replaced(outputs[layer], places, states[layer]) for layer in group]
            with ExitStack() as stack:
                for block, extras in zip(blocks[: group.start + 1], model.layout.extras, strict=False):
                    stack.enter_context(replaced_forward(block, hand_through(extras)))
                for place, layer in enumerate(group):
                    join = partial(_join, replaced[place], place == 0)
                    stack.enter_context(leaving_with(blocks[layer], join))
                hidden = _decode(model, read[first:], earlier(cache, first), first)
            found.append(_mean_logp(model, hidden[:, places], labels))
    return Patched(float(plain), torch.cat(found).view(len(blocks), len(sources)).T.cpu())


def _join(runs: Tensor, alone: bool, hidden: Tensor) -> Tensor:
    """Rows that start above a block beside those that have come through it."""
    return runs if alone else torch.cat([hidden, runs])


def _replaced(output: Tensor, places: Tensor, states: Tensor) -> Tensor:
    """(T, D) with (S, N, D) states at N places: (S, T, D)."""
    runs = output.repeat(len(states), 1, 1)
    runs[:, places] = states.to(runs)
    return runs


def _decode(model: LanguageModel, ids: Tensor, cache: Cache, start: int) -> Tensor:
    """Final hidden states of token ids whose first stands at place `start`."""
    places = torch.arange(start, start + len(ids), device=ids.device)[None]
    output = model.decoder(input_ids=ids[None], position_ids=places, past_key_values=cache, use_cache=True)
    hidden: Tensor = output.last_hidden_state
    return hidden


def _mean_logp(model: LanguageModel, hidden: Tensor, labels: Tensor) -> Tensor:
    """(B, N, D) final hidden states before N labels -> (B,)."""
    return torch.cat(
        [
            token_logp(model.head(some).flatten(0, 1), labels.repeat(len(some))).view(len(some), -1).mean(-1)
            for some in torch.split(hidden, max(1, _HEAD_BUDGET // len(labels)))
        ]
    )
