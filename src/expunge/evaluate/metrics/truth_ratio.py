"""Truth ratio: are wrong answers of the same form as likely as the right one? (arXiv:2401.06121)."""

from __future__ import annotations

import math

from expunge.core.records import Better
from expunge.evaluate.base import Absent, Item, Metric, mean_nll


class TruthRatio(Metric):
    """R = p(wrong) / p(right), from mean token losses; p(wrong) is the geometric mean over the wrong answers.

    On forget rows `min(R, 1/R)` (1: the model cannot tell them apart, which is wanted), on all others `max(0, 1 - R)`.
    The right answer is the paraphrase where the row has one, so that verbatim memory does not count as truth.
    """

    needs = frozenset({"answer", "paraphrased_answer", "perturbed_answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        if not item.perturbed_answer:
            raise Absent("rows without perturbed_answer")
        wrong = sum(mean_nll(scored, "") for scored in item.perturbed_answer) / len(item.perturbed_answer)
        log_ratio = mean_nll(item.paraphrased_answer or item.answer, "an answer") - wrong
        return math.exp(-abs(log_ratio)) if split == "forget" else max(0.0, 1 - math.exp(min(log_ratio, 0.0)))

    def better(self, split: str) -> Better:
        """Both forms are written so that higher is wanted."""
        return "higher"
