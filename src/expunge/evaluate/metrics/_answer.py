"""What token-wise metrics see of an answer: its text without the end token, and shares of its least likely tokens."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.evaluate.base import Absent, Item
from expunge.models.generate import Scored

OU_COMPAT = "Give OpenUnlearning's value where its code departs from the definition: "
"""Start of the description of every option `ou_compat`."""
TINY = 1e-10
"""Added to denominators by OpenUnlearning."""


def text_of(item: Item) -> str:
    """The stored text that the answer's labels spell.

    Raises:
        Absent: there is none.
    """
    text = item.example.answer or item.continuation
    if not text:
        raise Absent("rows without an answer")
    return text


def scored_of(item: Item) -> Scored:
    """The teacher-forced answer.

    Raises:
        Absent: there is none.
    """
    if item.answer is None:
        raise Absent("rows without an answer")
    return item.answer


def mean_of(numbers: Sequence[float]) -> float:
    """Mean over the positions of an answer, which has at least one."""
    return sum(numbers) / len(numbers)


def num_text_labels(item: Item, ou_compat: bool = False) -> int:
    """How many of the answer's labels are its text: all but the end token, which no document has.

    Args:
        item: evidence of the row.
        ou_compat: leave out the last label whatever it is, as OpenUnlearning does.

    Raises:
        Absent: no answer, or one without any token besides its end.
    """
    count = len(scored_of(item).logp)
    count -= ou_compat or item.example.text is None
    if count < 1:
        raise Absent("rows without an answer of at least one token")
    return count


def lowest_mean(values: Sequence[float], share: float) -> float:
    """Mean of the lowest `max(1, floor(share * N))` of N values (arXiv:2310.16789, equation 1)."""
    return mean_of(sorted(values)[: max(1, int(share * len(values)))])
