"""Which retain rows stand beside which forget rows: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from expunge.data.generator import named_generator

Pair = tuple[int, tuple[int, ...]]
"""A forget row and its retain rows."""


class PairBatches(Sampler[list[Pair]]):
    """Batches of pairs for one epoch at a time.

    Forget rows are permuted anew each epoch. Retain rows come from an endless stream of permutations of the whole set,
    so each is used once before any is used again, also across epochs; the stream's place depends on the epoch alone,
    so a resumed run sees the same pairs.

    Args:
        num_forget: forget rows.
        num_retain: retain rows; 0 when there is no retain stream.
        batch_size: pairs in a batch.
        retain_ratio: retain rows in a pair.
        seed: of all permutations.
    """

    def __init__(self, num_forget: int, num_retain: int, batch_size: int, retain_ratio: int, seed: int) -> None:
        self.num_forget = num_forget
        self.num_retain = num_retain
        self.batch_size = batch_size
        self.retain_ratio = retain_ratio if num_retain else 0
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_forget // self.batch_size)

    def __iter__(self) -> Iterator[list[Pair]]:
        pairs = self.pairs(self.epoch)
        for start in range(0, len(pairs), self.batch_size):
            yield pairs[start : start + self.batch_size]

    def pairs(self, epoch: int) -> list[Pair]:
        """All pairs of an epoch, in order."""
        order = _permutation(self.num_forget, f"{self.seed}/forget/{epoch}")
        first = epoch * self.num_forget * self.retain_ratio
        stream = self._retain(first, first + self.num_forget * self.retain_ratio)
        return [(row, tuple(next(stream) for _ in range(self.retain_ratio))) for row in order]

    def _retain(self, start: int, stop: int) -> Iterator[int]:
        place = start
        while place < stop:
            cycle, offset = divmod(place, self.num_retain)
            rows = _permutation(self.num_retain, f"{self.seed}/retain/{cycle}")[offset : offset + stop - place]
            yield from rows
            place += len(rows)


def _permutation(size: int, name: str) -> list[int]:
    return torch.randperm(size, generator=named_generator(name)).tolist()
