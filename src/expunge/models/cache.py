"""A key/value cache with room to grow: transformers' own copies all of itself for every new token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 32
"""Positions allocated beyond what is filled."""


class RoomyLayer(DynamicLayer):
    """One block's keys and values as the filled part of larger buffers.

    A copy of a layer shares its buffers: select rows of the copy, which gives it its own, before either is filled.
    """

    _stores: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write S new positions, (B, H, S, D) each, and give all that are filled, (B, H, T, D) each."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._stores is None or end > self._stores[0].shape[-2]:
            self._stores = (_grown(self.keys, key_states, start, end), _grown(self.values, value_states, start, end))
        for store, states in zip(self._stores, (key_states, value_states), strict=True):
            store[..., start:end, :] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        self._rebuild(lambda store: store[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._rebuild(lambda store: store.repeat_interleave(repeats, dim=0))

    def _rebuild(self, change: Any) -> None:
        if self._stores is not None:
            length = self.get_seq_length()
            self._stores = (change(self._stores[0]), change(self._stores[1]))
            self._show(length)

    def _show(self, length: int) -> None:
        assert self._stores is not None
        self.keys, self.values = (store[..., :length, :] for store in self._stores)


def roomy_cache(config: Any) -> DynamicCache:
    """An empty cache; blocks with a sliding window keep transformers' own layers."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _grown(filled: Tensor, new: Tensor, start: int, end: int) -> Tensor:
    store = torch.empty(*new.shape[:-2], end + _ROOM, new.shape[-1], dtype=new.dtype, device=new.device)
    if start:
        store[..., :start, :] = filled
    return store
