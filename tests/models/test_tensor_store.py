"""Kept hidden states come back as they were, wherever they lie."""

from __future__ import annotations

import gc

import pytest
import torch

from expunge.models.tensor_store import RowStore, StateMemory, TensorStore

ROWS = [torch.randn(length, 6, generator=torch.Generator().manual_seed(length)) for length in (3, 1, 5)]


@pytest.mark.parametrize("bound", [0, 100, 1 << 20])
def test_rows_come_back_from_memory_and_from_disk(bound: int) -> None:
    """Rows of 72, 24 and 120 bytes: none, the first two, or all fit; padding is zero."""
    store = RowStore(3, StateMemory(bound))
    for index in (2, 0, 1):
        store.put(index, ROWS[index])
    batch = store.batch([2, 0], torch.device("cpu"))
    assert batch.shape == (2, 5, 6)
    assert torch.equal(batch[0], ROWS[2])
    assert torch.equal(batch[1, :3], ROWS[0])
    assert not batch[1, 3:].any()
    assert torch.equal(store.batch([1], torch.device("cpu"))[0], ROWS[1])


@pytest.mark.parametrize("bound", [0, 1 << 20])
def test_half_precision_is_that_of_bfloat16(bound: int) -> None:
    store = RowStore(1, StateMemory(bound, torch.bfloat16))
    store.put(0, ROWS[0])
    assert torch.equal(store.batch([0], torch.device("cpu"))[0], ROWS[0].bfloat16().float())


def test_stores_share_one_bound_and_give_it_back() -> None:
    memory = StateMemory(200)
    first, second = RowStore(1, memory), RowStore(1, memory)
    first.put(0, ROWS[2])
    second.put(0, ROWS[2])
    assert memory.used == ROWS[2].nbytes, "the second row went to the file"
    del first
    gc.collect()
    assert memory.used == 0


@pytest.mark.parametrize("bound", [0, 1 << 20])
def test_tensors_of_any_dtype_and_shape_come_back_also_in_place(bound: int) -> None:
    given = {
        "scalar": torch.tensor(2.5),
        "turned": torch.arange(6.0).view(2, 3).T,
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False, True]),
        "empty": torch.empty(0, 3),
    }
    store: TensorStore[str] = TensorStore(StateMemory(bound))
    for name, tensor in given.items():
        store.put(name, tensor)
    for name, tensor in given.items():
        assert store[name].dtype == tensor.dtype
        assert torch.equal(store[name], tensor)
        into = torch.zeros_like(tensor)
        store.load(name, into)
        assert torch.equal(into, tensor)
    with pytest.raises(KeyError):
        store["other"]


def test_what_is_kept_is_a_copy() -> None:
    store, row = RowStore(1, StateMemory()), ROWS[0].clone()
    store.put(0, row)
    row.zero_()
    assert torch.equal(store.batch([0], torch.device("cpu"))[0], ROWS[0])
