"""What the metrics of confidence share."""

from __future__ import annotations

from expunge.evaluate.base import Absent, Item
from expunge.models.generate import Scored


def scored_answer(item: Item) -> Scored:
    """The stored answer as the model reads it, with what is known of its first choices.

    Raises:
        Absent: the row has no answer.
    """
    if item.answer is None:
        raise Absent("rows without an answer")
    return item.answer


def mean_of(numbers: tuple[float, ...]) -> float:
    """Over the positions of an answer, which has at least one."""
    return sum(numbers) / len(numbers)
