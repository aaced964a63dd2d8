"""Hidden states of many rows: in memory up to a bound that a model's stores share, in a temporary file beyond it."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from expunge.core.files import disk_errors
from expunge.data.batch import to_device


@dataclass
class StateMemory:
    """How much the kept hidden states of one model may take, and in what precision they are kept."""

    bound: int = 4 << 30
    """Bytes."""
    dtype: torch.dtype = torch.float32
    used: int = field(default=0, init=False)


class RowStore:
    """One tensor, mostly (T, D), for each of R rows of different length T; a row must be put before it is taken.

    Args:
        num_rows: R.
        memory: what it may use; shared with other stores, and given back when the store is let go of.
        dtype: in which states are kept; None: as `memory` says.
    """

    def __init__(self, num_rows: int, memory: StateMemory, dtype: torch.dtype | None = None) -> None:
        self._memory = memory
        self._dtype = dtype or memory.dtype
        self._rows: list[Tensor | None] = [None] * num_rows
        self._on_disk: dict[int, tuple[int, torch.Size]] = {}
        self._file: IO[bytes] | None = None
        self._claimed = [0]
        self.given = torch.float32
        """Dtype of the states that were put, which may be narrower than what they are kept in."""
        weakref.finalize(self, _give_back, memory, self._claimed)

    def put(self, index: int, states: Tensor) -> None:
        """Keep a copy of a row's states."""
        self.given = states.dtype
        kept = states.detach().to("cpu", self._dtype, copy=True)
        if self._memory.used + kept.nbytes <= self._memory.bound:
            self._memory.used += kept.nbytes
            self._claimed[0] += kept.nbytes
            self._rows[index] = kept
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="expunge-states-")  # noqa: SIM115 - lives as long as the store
        with disk_errors(Path(tempfile.gettempdir())):
            self._on_disk[index] = (self._file.seek(0, 2), kept.shape)
            self._file.write(kept.contiguous().view(torch.uint8).numpy().tobytes())

    def batch(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(B, T, D) float32 states of those rows, right-padded with zeros."""
        rows = [self[index] for index in indices]
        return to_device(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), device).float()

    def joined(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """(N, D) float32 states of those rows, one after another."""
        return to_device(torch.cat([self[index] for index in indices]), device).float()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """One row's states on the CPU, as they are kept."""
        row = self._rows[index]
        return row if row is not None else self._read(*self._on_disk[index])

    def part(self, index: int, place: int) -> Tensor:
        """The same at one place of the first axis."""
        row = self._rows[index]
        if row is not None:
            return row[place]
        offset, shape = self._on_disk[index]
        return self._read(offset + place * shape[1:].numel() * self._dtype.itemsize, shape[1:])

    def _read(self, offset: int, shape: torch.Size) -> Tensor:
        assert self._file is not None
        self._file.seek(offset)
        raw = np.frombuffer(bytearray(self._file.read(shape.numel() * self._dtype.itemsize)), dtype=np.uint8)
        return torch.from_numpy(raw).view(self._dtype).view(shape)


def _give_back(memory: StateMemory, claimed: list[int]) -> None:
    memory.used -= claimed[0]
