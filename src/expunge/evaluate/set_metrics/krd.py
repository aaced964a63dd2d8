"""KRD: share of the removable knowledge that was removed, 1 is the goal (reconstruction; KUDA, 2026)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from expunge.core.records import Frozen, Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.set_metrics._auc import DRAWS, Numbers, interval


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
        mine, theirs, before = (self._rows(some) for some in (values, reference, original))
        lacking = {"forget rows": mine, "original model: rows": before}
        if self.config.goal == "retrained":
            lacking["retrained reference: rows"] = theirs
        for what, rows in lacking.items():
            if not len(rows):
                return {"krd": Score(value=None, reference=name, reason=f"no {what} with {self.config.metric}")}
        goals = np.array([self.config.chance]) if self.config.goal == "chance" else theirs
        if before.mean() <= goals.mean():
            reason = "the original model knows no more than the goal: nothing can be removed"
            return {"krd": Score(value=None, reference=name, reason=reason)}
        then, now, ideal = (_means(rows, seed) for rows in (before, mine, goals))
        room = then - ideal
        low, high = interval((then - now)[room > 0] / room[room > 0])
        value = float((before.mean() - mine.mean()) / (before.mean() - goals.mean()))
        return {"krd": Score(value=value, low=low, high=high, n=len(mine), chance=None, reference=name)}

    def _rows(self, values: SetValues | None) -> Numbers:
        rows: Numbers = (values or {}).get("forget", {}).get(self.config.metric, np.array([]))
        return rows


def _means(rows: Numbers, seed: int) -> Numbers:
    """Means of resampled rows, the same rows for equally many: (DRAWS,)."""
    means: Numbers = rows[np.random.default_rng(seed).integers(len(rows), size=(DRAWS, len(rows)))].mean(axis=1)
    return means
