"""Activation patching: one block's output is replaced by another model's, for every block in turn.

A patched run equals the plain one up to its block and up to the first replaced position. So it starts above that block,
reads the keys and values of earlier positions from the plain run, and shares the blocks above with the runs of other
blocks: one pass upwards, whose batch each block's runs join above their block. Where an architecture does not allow for
this, as a check on a few tokens shows, each block's runs are a whole pass of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.batches import shrinking
from expunge.models.cache import earlier
from expunge.models.hooks import hand_through, leaving, leaving_with, replaced_forward
from expunge.models.shared_passes import CHECKED_TOKENS, decode, ends, label_logp, same_results
from expunge.models.sites import check_states
from expunge.numerics.intervals import Numbers

_JOINS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Network -> the answer of `_can_join`."""


class Patched(NamedTuple):
    """Mean log-probability of a row's labels, in nats."""

    plain: float
    patched: Tensor
    """(S, L) with the states of each of S sources instead of each block's own, float32 on the CPU."""

    @property
    def gaps(self) -> Numbers:
        """(S, L) nats that replacing the output of a block costs."""
        found: Numbers = self.plain - self.patched.double().numpy()
        return found


@torch.no_grad()
def patch(model: LanguageModel, row: Encoded, sources: Sequence[Tensor], token_budget: int | None = None) -> Patched:
    """Score a row's labels with one block's output replaced by another model's where the labels are predicted.

    Args:
        model: any model of L blocks.
        row: T tokens with N labels.
        sources: for each of S other models, (L, N, D) outputs of its blocks at the positions that predict the labels.
        token_budget: most tokens of one pass. Default: as many as the device has room for.
    """
    check_states(model)
    return shrinking(model.budget, model.device, "patch", partial(_patch, model, row, sources), token_budget)


def _patch(model: LanguageModel, row: Encoded, sources: Sequence[Tensor], token_budget: int) -> Patched:
    """`patch` with a given budget."""
    device = model.device
    read = torch.tensor(row.ids[: max(row.places)], device=device)
    labels = torch.tensor(row.labels, device=device)
    places = torch.tensor(row.places, device=device) - 1
    states = torch.stack([source.to(device) for source in sources], dim=1)
    with model.evaluating(), model.autocast():
        plain, patched = (_joined if _can_join(model) else _alone)(
            model, read, places, labels, states, range(len(states)), token_budget
        )
    return Patched(float(plain), patched.T.cpu())


def _can_join(model: LanguageModel) -> bool:
    """Whether runs that share passes give what whole passes give."""
    if model.base not in _JOINS:
        ids = model.probe_ids(CHECKED_TOKENS)[0]
        places = torch.tensor([3, CHECKED_TOKENS - 1], device=model.device)
        states = torch.randn(len(model.blocks()), 2, 2, model.layout.width, generator=torch.Generator().manual_seed(0))
        what = (model, ids, places, ids[places], states.to(model.device))
        _JOINS[model.base] = same_results(
            model,
            lambda: [_joined(*what, layers, 64)[1] for layers in ends(len(states))],
            lambda: [_alone(*what, layers, 64)[1] for layers in ends(len(states))],
        )
    return _JOINS[model.base]


def _joined(
    model: LanguageModel, ids: Tensor, places: Tensor, labels: Tensor, states: Tensor, layers: range, token_budget: int
) -> tuple[Tensor, Tensor]:
    """Mean log-probability of N labels that are predicted at N places: (), and (L, S) with replaced states.

    Args:
        model: any model.
        ids: (T,) tokens.
        places: (N,) where the labels are predicted.
        labels: (N,).
        states: (blocks, S, N, D).
        layers: L neighbouring blocks.
        token_budget: tokens of one pass.
    """
    first = int(places.min())
    places = places - first
    blocks = [block for _, block in model.blocks()]
    cache = DynamicCache()
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(leaving(block, lambda output: outputs.append(output[0, first:].clone())))
        hidden = decode(model, ids[None], 0, cache)
    plain = label_logp(model, hidden[:, places + first], labels).mean(-1)
    size = max(1, token_budget // (states.shape[1] * (len(ids) - first)))
    found = []
    for start in range(0, len(layers), size):
        group = layers[start : start + size]
        replaced = [_replaced(outputs[layer], places, states[layer]) for layer in group]
        with ExitStack() as stack:
            for block, extras in zip(blocks[: group.start + 1], model.layout.extras, strict=False):
                stack.enter_context(replaced_forward(block, hand_through(extras)))
            for place, layer in enumerate(group):
                stack.enter_context(leaving_with(blocks[layer], partial(_join, replaced[place], place == 0)))
            hidden = decode(model, ids[None, first:], first, earlier(cache, first))
        found.append(label_logp(model, hidden[:, places], labels).mean(-1))
    return plain, torch.cat(found).view(len(layers), -1)


def _alone(
    model: LanguageModel, ids: Tensor, places: Tensor, labels: Tensor, states: Tensor, layers: range, _: int
) -> tuple[Tensor, Tensor]:
    """The same, every block's runs a whole pass without a cache."""
    blocks = [block for _, block in model.blocks()]
    rows = ids.repeat(states.shape[1], 1)
    hidden = model.decoder(input_ids=rows[:1], use_cache=False).last_hidden_state
    plain = label_logp(model, hidden[:, places], labels).mean(-1)
    found = []
    for layer in layers:
        with leaving(blocks[layer], partial(_put, places, states[layer])):
            hidden = model.decoder(input_ids=rows, use_cache=False).last_hidden_state
        found.append(label_logp(model, hidden[:, places], labels).mean(-1))
    return plain, torch.stack(found)


def _put(places: Tensor, states: Tensor, output: Tensor) -> None:
    output[:, places] = states.to(output)


def _join(runs: Tensor, alone: bool, hidden: Tensor) -> Tensor:
    """Rows that start above a block beside those that have come through it."""
    return runs if alone else torch.cat([hidden, runs])


def _replaced(output: Tensor, places: Tensor, states: Tensor) -> Tensor:
    """(T, D) with (S, N, D) states at N places: (S, T, D)."""
    runs = output.repeat(len(states), 1, 1)
    runs[:, places] = states.to(runs)
    return runs
