"""Raw truth ratio: each row's p(wrong) / p(right), what forget quality compares (arXiv:2401.06121)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import Better, Frozen
from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import OU_COMPAT, TINY
from expunge.evaluate.metrics._truth import wrong_to_right


class RawTruthRatio(Metric):
    """R = p(wrong) / p(right) as in `truth_ratio`, before it is made a score. 1: the model cannot tell them apart."""

    class Config(Frozen):
        """Options of the raw truth ratio."""

        ou_compat: bool = Field(False, description=f"{OU_COMPAT}1e-10 is added to p(right)")

    needs = frozenset({"answer", "paraphrased_answer", "perturbed_answer"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """At least 0."""
        return wrong_to_right(item, TINY if self.config.ou_compat else 0.0)

    def better(self, split: str) -> Better:
        """Neither: a retrained model's distribution is wanted, not a large or a small ratio."""
        return "neither"
