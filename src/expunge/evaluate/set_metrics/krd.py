"""KRD: share of the removable knowledge that was removed, 1 is the goal (reconstruction; KUDA, 2026)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from expunge.core.records import Frozen, Score
from expunge.evaluate.base import RowNumbers, SetMetric, SetValues, rows_of
from expunge.numerics.intervals import clustered, percentiles, resampled_weights, weighted_mean


class KRD(SetMetric):
    """`(M_original - M) / (M_original - M_goal)` for a metric M of knowledge of the forget rows.

    The goal is chance for multiple choice (1 / options), else the retrained model. The paper's name and its wish for a
    value near 1 are known, the formula is inferred. Below 0: more is known than before; above 1: less than the goal.
    """

    class Config(Frozen):
        """Options of KRD."""

        metric: str = Field("probability", description="Row metric of knowledge, higher for more of it")
        goal: Literal["retrained", "chance"] = Field(
            "retrained", description="What complete removal would leave: a retrained model's value, or `chance`"
        )
        chance: float = Field(0.25, ge=0, lt=1, description="A guesser's value, e.g. 1 / options")

    title = "KRD"
    needs_original = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.needs_values = (config.metric,)

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """`krd`, 1 when all is removed that should be."""
        goal = {"chance": f"chance of {self.config.chance:g}"}.get(self.config.goal, "retrained")
        name = f"original; {goal}"
        mine, theirs, before = (rows_of(some, "forget", self.config.metric) for some in (values, reference, original))
        lacking = {"forget rows": mine, "original model: rows": before}
        if self.config.goal == "retrained":
            lacking["retrained reference: rows"] = theirs
        for what, rows in lacking.items():
            if not len(rows.numbers):
                return {"krd": Score(value=None, reference=name, reason=f"no {what} with {self.config.metric}")}
        goals = RowNumbers(np.array([self.config.chance])) if self.config.goal == "chance" else theirs
        at_first, at_last, at_best = (float(rows.numbers.mean()) for rows in (before, mine, goals))
        if at_first <= at_best:
            reason = "the original model knows no more than the goal: nothing can be removed"
            return {"krd": Score(value=None, reference=name, reason=reason)}
        then, now, ideal = (
            weighted_mean(rows.numbers, resampled_weights(rows.clusters or len(rows.numbers), seed))
            for rows in (before, mine, goals)
        )
        room = then - ideal
        low, high = percentiles((then - now)[room > 0] / room[room > 0])
        value = (at_first - at_last) / (at_first - at_best)
        n, units = len(mine.numbers), clustered(mine.clusters)
        return {"krd": Score(value=value, low=low, high=high, n=n, clusters=units, reference=name)}
