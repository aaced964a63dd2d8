"""A key/value cache with room to grow; transformers' own is copied for every new token."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

_ROOM = 32
"""Positions allocated beyond what is filled."""


@dataclass(frozen=True)
class CachePolicy:
    """How answers are computed; in every way they equal those of plain passes.

    Args:
        keeps: a cache is used; without one all tokens are read again for each new one, which is slow.
        steps_only: it is used for generation only, one token at a time; given answers are read with their prompts.
        holes: padding may lie between tokens, so that a common start of prompts is read once for all of them.
        longest: positions that a cache must be able to hold.
        reason: why the cache is used less than it could be with a plain transformer.
    """

    keeps: bool
    holes: bool
    steps_only: bool = False
    longest: int = 0
    reason: str = ""

    @property
    def extends(self) -> bool:
        """Whether several tokens can be read after what the cache holds."""
        return self.keeps and not self.steps_only

    @property
    def summary(self) -> str:
        """The way in a few words, for records."""
        if not self.keeps:
            return "no cache"
        if self.steps_only:
            return "cache for generation"
        return "cache with a shared start" if self.holes else "cache for each prompt"


class RoomyLayer(DynamicLayer):
    """One block's keys and values as the filled part of larger buffers.

    A copy of a layer shares its buffers: select rows of the copy, which gives it its own, before either is filled.
    """

    _stores: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write S new positions, (B, H, S, D) each, and give all that are filled, (B, H, T, D) each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)  # type: ignore[no-untyped-call]
        start: int = self.get_seq_length()
        end = start + key_states.shape[-2]
        stores = self._stores
        if stores is None or end > stores[0].shape[-2]:
            stores = (_grown(self.keys, key_states, start, end), _grown(self.values, value_states, start, end))
        for store, states in zip(stores, (key_states, value_states), strict=True):
            store[..., start:end, :] = states
        return self._show(stores, end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        self._rebuild(lambda store: store[indices])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """The same, under the name that layers of every kind know."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._rebuild(lambda store: store.repeat_interleave(repeats, dim=0))

    def _rebuild(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._stores is not None:
            keys, values = self._stores
            self._show((change(keys), change(values)), self.get_seq_length())

    def _show(self, stores: tuple[Tensor, Tensor], length: int) -> tuple[Tensor, Tensor]:
        self._stores = stores
        self.keys, self.values = shown = (stores[0][..., :length, :], stores[1][..., :length, :])
        return shown


class EarlierLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One block's keys and values of earlier places, the same for any number of rows; it keeps nothing that is added.

    Args:
        keys: (R, H, T, D) of the earlier places of R rows; a pass has K * R rows, K times these.
        values: the same.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys = keys
        self.values = values
        self._kept = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What a layer of attention reads: (R, H, T, D) before (K * R, H, S, D)."""
        keys, values = self._kept
        times = len(key_states) // len(keys)
        return (
            torch.cat([keys.repeat(times, 1, 1, 1), key_states], dim=-2),
            torch.cat([values.repeat(times, 1, 1, 1), value_states], dim=-2),
        )


def earlier(cache: Any, length: int, first_row: int = 0) -> Cache:
    """The first positions of a filled cache, for passes that continue from there.

    Args:
        cache: of transformers, with keys and values in every layer.
        length: places.
        first_row: rows below this one are left out.
    """
    parts = [(layer.keys[first_row:, :, :length], layer.values[first_row:, :, :length]) for layer in cache.layers]
    return Cache([EarlierLayer(*part) for part in parts])


def roomy_cache(config: Any, longest: int = 0, device: torch.device | None = None) -> DynamicCache:
    """An empty cache; layers that forget nothing within `longest` positions have room to grow.

    Args:
        config: of the network.
        longest: positions that will be filled at most. A sliding window at least as long never moves, so that its
            layer may keep everything.
        device: where it will be filled. On an accelerator transformers is kept from reading the values of the mask of
            every new token, to see whether it can go without: the host would wait for the device.
    """
    cache = DynamicCache(config=config)
    roomy: Callable[[], RoomyLayer] = RoomyLayer
    cache.layers = [roomy() if _keeps_all(layer, longest) else layer for layer in cache.layers]
    for layer in cache.layers if device is not None and device.type != "cpu" else ():
        layer.is_compileable = True  # to transformers' masks this only means: do not read values
    return cache


def _keeps_all(layer: Any, longest: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.sliding_window >= longest > 0
    return type(layer) is DynamicLayer


def select_rows(cache: Cache, rows: Tensor) -> Cache:
    """A cache of these rows, in this order, which may repeat; shares no memory with the first one."""
    selected = copy.copy(cache)
    selected.layers = [_selected(layer, rows) for layer in cache.layers]
    return selected


def _selected(layer: Any, rows: Tensor) -> Any:
    # Selecting gives a layer new tensors, so that a shallow copy leaves the old ones alone; recurrent layers keep
    # theirs in dictionaries.
    layer = copy.copy(layer)
    vars(layer).update({name: dict(value) for name, value in vars(layer).items() if isinstance(value, dict)})
    layer.reorder_cache(rows)
    return layer


def _grown(filled: Tensor | None, new: Tensor, start: int, end: int) -> Tensor:
    store = torch.empty(*new.shape[:-2], end + _ROOM, new.shape[-1], dtype=new.dtype, device=new.device)
    if filled is not None and start:
        store[..., :start, :] = filled
    return store
