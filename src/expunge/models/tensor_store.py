"""Stores of tensors: in memory up to a limit that several stores share, in a temporary file beyond it."""

from __future__ import annotations

import errno
import tempfile
import weakref
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from expunge.core.files import disk_errors
from expunge.data.batch import to_device
from expunge.models.fingerprint import tensor_bytes

Key = TypeVar("Key", bound=Hashable)


@dataclass
class StateMemory:
    """How much the stores that share it may take of memory, and in what precision they keep hidden states."""

    bound: int = 4 << 30
    """Bytes."""
    dtype: torch.dtype = torch.float32
    used: int = field(default=0, init=False)


class _Place(NamedTuple):
    """Where in the file a tensor lies."""

    offset: int
    shape: torch.Size
    dtype: torch.dtype


class TensorStore(Generic[Key]):
    """Tensors by key, each in the dtype in which it was put: in memory up to a bound, in a temporary file beyond it.

    Args:
        memory: limit shared with other stores; released when the store is deleted.
    """

    def __init__(self, memory: StateMemory) -> None:
        self._memory = memory
        self._in_memory: dict[Key, Tensor] = {}
        self._on_disk: dict[Key, _Place] = {}
        self._file: IO[bytes] | None = None
        self._claimed = [0]
        weakref.finalize(self, _give_back, memory, self._claimed)

    def put(self, key: Key, tensor: Tensor) -> None:
        """Keep a copy of a tensor.

        Raises:
            DiskError: there is no room for it, neither in memory nor on disk.
        """
        tensor = tensor.detach()
        if self._memory.used + tensor.nbytes <= self._memory.bound:
            self._memory.used += tensor.nbytes
            self._claimed[0] += tensor.nbytes
            self._in_memory[key] = tensor.to("cpu", copy=True)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="expunge-states-")  # noqa: SIM115 - lives as long as the store
        with disk_errors(Path(tempfile.gettempdir())):
            self._on_disk[key] = _Place(self._file.seek(0, 2), tensor.shape, tensor.dtype)
            self._file.write(tensor_bytes(tensor.cpu().contiguous()))
            self._file.flush()  # a full disk shows here, and not when the tensor is needed

    def load(self, key: Key, into: Tensor) -> None:
        """Write a kept tensor into another one of its shape and dtype, without a third on the CPU."""
        place = self._on_disk.get(key)
        if place is not None and into.device.type == "cpu" and into.is_contiguous():
            self._read_into(place.offset, into)
        else:
            into.copy_(self[key])

    def __contains__(self, key: object) -> bool:
        return key in self._in_memory or key in self._on_disk

    def __getitem__(self, key: Key) -> Tensor:
        """A kept tensor, on the CPU."""
        found = self._in_memory.get(key)
        return self._read(self._on_disk[key]) if found is None else found

    def part(self, key: Key, place: int) -> Tensor:
        """The same at one place of the first axis."""
        found = self._in_memory.get(key)
        if found is not None:
            return found[place]
        offset, shape, dtype = self._on_disk[key]
        return self._read(_Place(offset + place * shape[1:].numel() * dtype.itemsize, shape[1:], dtype))

    def _read(self, place: _Place) -> Tensor:
        found = torch.empty(place.shape, dtype=place.dtype)
        self._read_into(place.offset, found)
        return found

    def _read_into(self, offset: int, tensor: Tensor) -> None:
        assert self._file is not None
        self._file.seek(offset)
        if self._file.readinto(tensor_bytes(tensor)) != tensor.nbytes:  # type: ignore[attr-defined]
            raise OSError(errno.EIO, "a temporary file was cut short", tempfile.gettempdir())


class RowStore(TensorStore[int]):
    """One tensor, mostly (T, D), for each of R rows of different length T; a row must be put before it is taken.

    Args:
        num_rows: R.
        memory: limit shared with other stores; released when the store is deleted.
        dtype: of the kept states. Default: that of `memory`.
    """

    def __init__(self, num_rows: int, memory: StateMemory, dtype: torch.dtype | None = None) -> None:
        super().__init__(memory)
        self._num_rows = num_rows
        self._dtype = dtype or memory.dtype
        self.given = torch.float32
        """Dtype of the states that were put, which may be narrower than what they are kept in."""

    def put(self, key: int, tensor: Tensor) -> None:
        """Keep a copy of a row's states."""
        self.given = tensor.dtype
        super().put(key, tensor.to(self._dtype))

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(B, T, D) float32 states of those rows, right-padded with zeros."""
        rows = [self[index] for index in indices]
        return to_device(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), device).float()

    def joined(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(N, D) float32 states of those rows, one after another."""
        return to_device(torch.cat([self[index] for index in indices]), device).float()

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


def _give_back(memory: StateMemory, claimed: list[int]) -> None:
    memory.used -= claimed[0]
