"""Which retain rows are paired with which forget rows: a pure function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch.utils.data import Sampler

from expunge.data.generator import named_generator

Pair = tuple[int, tuple[int, ...]]
"""A forget row and its retain rows."""


@dataclass(frozen=True)
class _Group:
    """Forget rows that may share a batch, and the retain rows that are paired with them."""

    name: str
    forget: Sequence[int]
    retain: Sequence[int]


class PairBatches(Sampler[list[Pair]]):
    """Batches of pairs for one epoch at a time.

    Retain rows come from an endless stream of passes over the whole set, so that each is used once before any is used
    again, also across epochs; the position in the stream depends on the epoch alone, so that a resumed run sees the
    same pairs.

    Args:
        num_forget: forget rows.
        num_retain: retain rows; 0 without a retain stream.
        batch_size: pairs in a batch.
        retain_ratio: retain rows in a pair.
        seed: of all permutations.
        shuffled: permute the forget rows anew in each epoch and the retain rows in each pass; otherwise both keep the
            order in which they are stored.
        topics: topic of each forget row: a batch then holds rows of one topic, and the topics take turns. Empty: any
            rows share a batch.
        retain_topics: topic of each retain row; a topic without retain rows of its own is paired with all of them.
    """

    def __init__(
        self,
        num_forget: int,
        num_retain: int,
        batch_size: int,
        retain_ratio: int,
        seed: int,
        *,
        shuffled: bool = True,
        topics: Sequence[str | None] = (),
        retain_topics: Sequence[str | None] = (),
    ) -> None:
        self.num_forget = num_forget
        self.batch_size = batch_size
        self.retain_ratio = retain_ratio if num_retain else 0
        self.seed = seed
        self.shuffled = shuffled
        self.epoch = 0
        everything = _Group("", range(num_forget), range(num_retain))
        self._groups = [
            _Group(f"/{topic}", _places(topics, topic), _places(retain_topics, topic) or everything.retain)
            for topic in dict.fromkeys(topics)
        ] or [everything]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(-(-len(group.forget) // self.batch_size) for group in self._groups)

    def __iter__(self) -> Iterator[list[Pair]]:
        return self._batches(self.epoch)

    def pairs(self, epoch: int) -> list[Pair]:
        """All pairs of an epoch, in order."""
        return [pair for batch in self._batches(epoch) for pair in batch]

    def _batches(self, epoch: int) -> Iterator[list[Pair]]:
        for turn in zip_longest(*(self._batches_of(group, epoch) for group in self._groups)):
            yield from (batch for batch in turn if batch)

    def _batches_of(self, group: _Group, epoch: int) -> Iterator[list[Pair]]:
        order = self._order(group.forget, f"{self.seed}/forget{group.name}/{epoch}")
        stream = self._retain(group, epoch * len(order) * self.retain_ratio)
        pairs = [(row, tuple(next(stream) for _ in range(self.retain_ratio))) for row in order]
        for start in range(0, len(pairs), self.batch_size):
            yield pairs[start : start + self.batch_size]

    def _retain(self, group: _Group, start: int) -> Iterator[int]:
        cycle, offset = divmod(start, len(group.retain) or 1)
        while True:
            yield from self._order(group.retain, f"{self.seed}/retain{group.name}/{cycle}")[offset:]
            cycle, offset = cycle + 1, 0

    def _order(self, rows: Sequence[int], name: str) -> list[int]:
        if not self.shuffled:
            return list(rows)
        return [rows[place] for place in torch.randperm(len(rows), generator=named_generator(name)).tolist()]


def _places(topics: Sequence[str | None], topic: str | None) -> list[int]:
    return [place for place, one in enumerate(topics) if one == topic]
