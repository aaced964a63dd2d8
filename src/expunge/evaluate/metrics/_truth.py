"""Right against wrong answers of one row, by their mean token losses."""

from __future__ import annotations

import math

from expunge.evaluate.base import Absent, Item, mean_nll


def right_and_wrong_loss(item: Item) -> tuple[float, float]:
    """Mean token loss of the right answer, and the mean of those of the wrong ones (their geometric-mean probability).

    The right answer is the paraphrase where the row has one, so that verbatim memory does not count as truth.

    Raises:
        Absent: the row has no wrong answers, or no right one.
    """
    if not item.perturbed_answer:
        raise Absent("rows without perturbed_answer")
    wrong = sum(mean_nll(scored, "") for scored in item.perturbed_answer) / len(item.perturbed_answer)
    return mean_nll(item.paraphrased_answer or item.answer, "an answer"), wrong


def wrong_to_right(item: Item, tiny: float = 0.0) -> float:
    """R = p(wrong) / p(right), at least 0.

    Args:
        item: evidence of the row.
        tiny: added to the denominator.
    """
    right, wrong = right_and_wrong_loss(item)
    if tiny:
        return math.exp(-wrong) / (math.exp(-right) + tiny)
    return math.exp(min(right - wrong, 700.0))
