"""A file of tensors that any reader of safetensors understands, and that shows its own damage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from expunge.models.tensor_file import each_tensor, is_intact, write_tensors

TENSORS = {
    "b.weight": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "a.bias": torch.tensor([1.5, -2.0, 0.25], dtype=torch.bfloat16),
    "turned": torch.arange(6, dtype=torch.float16).view(2, 3).T,
    "scalar": torch.tensor(2.0),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "some.safetensors", TENSORS)
    return tmp_path / "some.safetensors"


def test_others_read_it(path: Path) -> None:
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert [name for name, _ in each_tensor(path)] == sorted(TENSORS)
    assert is_intact(path)


@pytest.mark.parametrize("place", [-1, -20, 40])
def test_a_changed_byte_is_seen(path: Path, place: int) -> None:
    """In the data, and in the header."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert not is_intact(path)


def test_what_is_cut_or_missing_is_not_intact(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_intact(path)
    path.unlink()
    assert not is_intact(path)
