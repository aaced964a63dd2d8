"""Truth ratio: are wrong answers of the same form as likely as the right one? (arXiv:2401.06121)."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from expunge.core.records import Better, Frozen
from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import OU_COMPAT, TINY
from expunge.evaluate.metrics._truth import right_and_wrong_loss, wrong_to_right


class TruthRatio(Metric):
    """R = p(wrong) / p(right), from mean token losses; p(wrong) is the geometric mean over the wrong answers.

    On forget rows `min(R, 1/R)` (1: the model cannot tell them apart, which is wanted), on all others `max(0, 1 - R)`.
    The right answer is the paraphrase where the row has one, so that verbatim memory does not count as truth.
    """

    class Config(Frozen):
        """Options of the truth ratio."""

        aggregator: Literal["by_role", "closer_to_1_better", "true_better", "prob_mean"] = Field(
            "by_role",
            description="min(R, 1/R), max(0, 1 - R) or 1 / (1 + R) of each row; by_role: the first on forget rows, the "
            "second on all others",
        )
        ou_compat: bool = Field(False, description=f"{OU_COMPAT}1e-10 is added to each denominator")

    meaning = "How likely wrong answers are against the right one, in other words than those trained on."
    needs = frozenset({"answer", "paraphrased_answer", "perturbed_answer"})

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.usual = config.aggregator == "by_role"

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        form = self._form(split)
        ratio = wrong_to_right(item, TINY if self.config.ou_compat else 0.0)
        if form == "true_better":
            return max(0.0, 1 - ratio)
        if form == "prob_mean":
            return 1 / (1 + ratio)
        if self.config.ou_compat:
            return min(ratio, 1 / (ratio + TINY))
        right, wrong = right_and_wrong_loss(item)
        return math.exp(-abs(right - wrong))

    def better(self, split: str) -> Better:
        """The first two forms are written so that higher is wanted; the third is knowledge."""
        return super().better(split) if self._form(split) == "prob_mean" else "higher"

    def _form(self, split: str) -> str:
        if self.config.aggregator == "by_role":
            return "closer_to_1_better" if split == "forget" else "true_better"
        return str(self.config.aggregator)
