"""An attack's AUC compared with that of the retrained model."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from pydantic import Field

from expunge.core.records import Frozen, Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.config import Role
from expunge.evaluate.membership import sides
from expunge.numerics.intervals import Numbers, percentiles

OU_TINY = 1e-10
"""What OpenUnlearning adds to the denominator."""


class AgainstRetrained(SetMetric):
    """`100 * numerator / denominator` of two AUCs, in percent, with an interval over the rows of both models.

    The same rows are drawn for both models if they have equally many.
    """

    class Config(Frozen):
        """Options of a comparison of AUCs."""

        attack: str = Field("mia_min_k", pattern="^mia_", description="Whose AUC is compared: a row metric mia_*")
        assumed_auc: float | None = Field(
            None,
            ge=0,
            le=1,
            description="AUC of the retrained model if no reference is given; OpenUnlearning takes 0.5. Default: the "
            "score is then absent",
        )
        ou_compat: bool = Field(
            False,
            description="Give OpenUnlearning's value where its code departs from the definition: 1e-10 is added to the "
            "denominator, which may then be 0",
        )

    roles: ClassVar[tuple[Role, ...]] = ("forget", "holdout")
    score_name: ClassVar[str]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.needs_values = (config.attack,)

    @staticmethod
    @abstractmethod
    def fraction(auc: Numbers, retrained: Numbers) -> tuple[Numbers, Numbers]:
        """Numerator and denominator from the AUC of the model and that of the retrained model."""

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """One score, in percent."""
        return {self.score_name: self._score(values, reference, seed)}

    def _score(self, values: SetValues, reference: SetValues | None, seed: int) -> Score:
        mine = sides(values, self.config.attack)
        if isinstance(mine, str):
            return Score(value=None, reason=mine, reference="retrained")
        theirs = sides(reference, self.config.attack, "retrained reference: ")
        name, assumed = "retrained", self.config.assumed_auc
        draws = mine.auc_draws(seed)
        if not isinstance(theirs, str):
            level, level_draws = theirs.auc(), theirs.auc_draws(seed)
        elif reference is None and assumed is not None:
            name = f"an assumed AUC of {assumed:g}"
            level, level_draws = assumed, draws * 0 + assumed
        else:
            return Score(value=None, reason=theirs, reference=name)
        tiny = OU_TINY if self.config.ou_compat else 0.0
        above, below = self.fraction(draws * 0 + mine.auc(), draws * 0 + level)
        if (below + tiny <= 0).any():
            return Score(value=None, reason="the retrained model's AUC leaves nothing to divide by", reference=name)
        above_draws, below_draws = self.fraction(draws, level_draws)
        kept = below_draws + tiny > 0
        low, high = percentiles(100 * above_draws[kept] / (below_draws[kept] + tiny))
        return Score(
            value=float(100 * above[0] / (below[0] + tiny)),
            low=low,
            high=high,
            n=mine.num_rows,
            clusters=mine.clusters,
            chance=0.0,
            reference=name,
        )
