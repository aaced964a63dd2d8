"""How rows are put together."""

from __future__ import annotations

from expunge.data.batch import by_length


def test_a_full_batch_takes_no_much_shorter_sequence() -> None:
    """16 tokens are enough: 8, 8 are a batch, 7 is no shorter by over an eighth, 4 begins another; context counts."""
    assert by_length([8, 4, 8, 7, 4], 100, enough=16) == [[0, 2, 3], [1, 4]]
    assert by_length([8, 4, 8, 7, 4], 100) == [[0, 2, 3, 1, 4]]
    assert by_length([8, 4, 8, 7, 4], 36, context=4) == [[0, 2, 3], [1, 4]]
