"""The roomy cache holds what transformers' own cache holds, whatever is done to it."""

from __future__ import annotations

import copy

import torch
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import (
    Cache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from expunge.models.cache import RoomyLayer, roomy_cache, select_rows


def _states(rows: int, positions: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(rows, 2, positions, 3, generator=generator) for _ in range(2))
    return keys, values


def test_same_contents_after_growth_selection_and_repetition() -> None:
    """40 positions first, then 60 single ones: past the first allocation; rows are dropped, permuted and repeated."""
    ours, theirs = RoomyLayer(), DynamicLayer()
    for layer in (ours, theirs):
        layer.update(*_states(3, 40, 0))
        layer.batch_repeat_interleave(2)
        for step in range(60):
            if step == 20:
                layer.batch_select_indices(torch.tensor([5, 0, 3, 3]))
            layer.update(*_states(6 if step < 20 else 4, 1, step))
    assert ours.get_seq_length() == theirs.get_seq_length() == 100
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)


def test_a_selected_copy_leaves_the_original_alone() -> None:
    layer = RoomyLayer()
    layer.update(*_states(2, 5, 0))
    kept = layer.keys.clone()
    branch = copy.copy(layer)
    branch.batch_select_indices(torch.tensor([1, 1, 0]))
    branch.update(*_states(3, 1, 1))
    layer.update(*_states(2, 1, 2))
    assert torch.equal(layer.keys[..., :5, :], kept)
    assert torch.equal(layer.keys[..., 5:, :], _states(2, 1, 2)[0])
    assert torch.equal(branch.keys[..., 5:, :], _states(3, 1, 1)[0])


def test_windows_keep_their_own_layers_unless_they_hold_all() -> None:
    cache = roomy_cache(LlamaConfig(num_hidden_layers=2))
    assert [type(layer) for layer in cache.layers] == [RoomyLayer, RoomyLayer]
    config = MistralConfig(num_hidden_layers=1, sliding_window=8)
    assert type(roomy_cache(config, 9).layers[0]) is DynamicSlidingWindowLayer
    assert type(roomy_cache(config, 8).layers[0]) is RoomyLayer


def test_selected_rows_are_those_rows_in_layers_of_every_kind() -> None:
    """Keys, a recurrent state, and both in one layer; what they were selected from stays, whatever happens to them."""
    both = LinearAttentionAndFullAttentionLayer()
    cache = Cache([RoomyLayer(), LinearAttentionLayer(), both])
    keys, values = _states(2, 5, 0)
    state = torch.arange(6.0).view(2, 3)
    for place in (0, 2):
        cache.update(keys, values, place)
    for place in (1, 2):
        cache.update_recurrent_state(state, place)
    selected = select_rows(cache, torch.tensor([1, 1, 0]))
    for place in (1, 2):
        assert torch.equal(selected.layers[place].recurrent_states[0], state[[1, 1, 0]])
        selected.update_recurrent_state(torch.zeros(3, 3), place)
        assert torch.equal(cache.layers[place].recurrent_states[0], state)
    for place in (0, 2):
        assert torch.equal(selected.layers[place].keys, keys[[1, 1, 0]])
        selected.update(*_states(3, 1, 1), place)
        assert torch.equal(cache.layers[place].keys, keys)
