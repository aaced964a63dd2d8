"""Pairs: every row in its turn, the same for the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from expunge.train.pairing import PairBatches


def retained(batches: PairBatches, num_epochs: int) -> list[int]:
    return [row for epoch in range(num_epochs) for _, rows in batches.pairs(epoch) for row in rows]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_every_forget_row_once_an_epoch(batch_size: int) -> None:
    """10 rows in batches of 3: 3 3 3 1."""
    batches = PairBatches(10, 7, batch_size, 1, seed=0)
    for epoch in range(3):
        batches.set_epoch(epoch)
        seen = list(batches)
        assert len(seen) == len(batches) == -(-10 // batch_size)
        assert all(len(batch) == batch_size for batch in seen[:-1])
        assert sorted(row for batch in seen for row, _ in batch) == list(range(10))


@pytest.mark.parametrize(
    ("num_forget", "num_retain", "ratio"), [(10, 7, 1), (5, 64, 3), (8, 3, 2), (4, 4, 1), (3, 1, 2)]
)
def test_every_retain_row_once_before_any_again(num_forget: int, num_retain: int, ratio: int) -> None:
    """Across the border of an epoch too: each stretch of `num_retain` draws is a permutation of the set."""
    batches = PairBatches(num_forget, num_retain, 4, ratio, seed=0)
    stream = retained(batches, 9)
    assert len(stream) == 9 * num_forget * ratio
    whole = len(stream) // num_retain * num_retain
    for start in range(0, whole, num_retain):
        assert sorted(stream[start : start + num_retain]) == list(range(num_retain))
    assert max(Counter(stream[whole:]).values(), default=1) == 1


def test_pairs_depend_on_seed_and_epoch_alone() -> None:
    """Asking for epoch 5 first gives what a run through epochs 0 to 5 would; a resumed run does just that."""
    one, other = PairBatches(20, 30, 4, 2, seed=3), PairBatches(20, 30, 4, 2, seed=3)
    late = other.pairs(5)
    assert [one.pairs(epoch) for epoch in range(6)][5] == late
    assert one.pairs(4) != late
    assert PairBatches(20, 30, 4, 2, seed=4).pairs(5) != late
    assert PairBatches(20, 30, 7, 2, seed=3).pairs(5) == late


def test_no_retain_stream() -> None:
    assert all(rows == () for _, rows in PairBatches(5, 0, 2, 3, seed=0).pairs(0))


def test_topics_take_turns() -> None:
    """Rows as stored; the topic without retain rows of its own is paired with all of them."""
    forget = ["bio", "cyber", "bio", "bio", "cyber", "bio", "bio"]
    retain = ["cyber", None, "cyber"]
    batches = PairBatches(7, 3, 2, 1, seed=0, shuffled=False, topics=forget, retain_topics=retain)
    assert list(batches) == [
        [(0, (0,)), (2, (1,))],
        [(1, (0,)), (4, (2,))],
        [(3, (2,)), (5, (0,))],
        [(6, (1,))],
    ]
    assert len(batches) == 4
    batches.set_epoch(1)
    assert list(batches)[:2] == [[(0, (2,)), (2, (0,))], [(1, (0,)), (4, (2,))]]


def test_shuffled_topics_hold_the_same_rows() -> None:
    topics = ["a"] * 5 + ["b"] * 3
    batches = PairBatches(8, 4, 2, 1, seed=0, topics=topics)
    seen = list(batches)
    assert [{topics[row] for row, _ in batch} for batch in seen] == [{"a"}, {"b"}, {"a"}, {"b"}, {"a"}]
    assert sorted(row for batch in seen for row, _ in batch) == list(range(8))
    assert [row for row, _ in batches.pairs(0)] != [row for row, _ in batches.pairs(1)]
