"""Normalised probability: share of the right answer among itself and the wrong ones (arXiv:2401.06121)."""

from __future__ import annotations

import math

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Absent, Item, Metric, mean_nll
from expunge.evaluate.metrics._answer import OU_COMPAT, TINY


class NormalisedProbability(Metric):
    """`p / (p + sum p_wrong)` with `p = exp(-mean token loss)`: TOFU's probability on real authors and world facts."""

    class Config(Frozen):
        """Options of the normalised probability."""

        ou_compat: bool = Field(False, description=f"{OU_COMPAT}1e-10 is added to the denominator")

    meaning = "Probability of the stored answer against that of the wrong ones."
    needs = frozenset({"answer", "perturbed_answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        if not item.perturbed_answer:
            raise Absent("rows without perturbed_answer")
        right = mean_nll(item.answer, "an answer")
        wrong = sum(math.exp(min(right - mean_nll(scored, ""), 700.0)) for scored in item.perturbed_answer)
        return 1 / (1 + wrong + (TINY * math.exp(min(right, 700.0)) if self.config.ou_compat else 0.0))
