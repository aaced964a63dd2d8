"""Choice above chance: right options beyond a guesser's, in the standard errors of guessing (arXiv:2009.03300)."""

from __future__ import annotations

import numpy as np

from expunge.evaluate.base import Absent, Item, Metric
from expunge.evaluate.metrics._choice import takes_right_option
from expunge.numerics.intervals import Numbers


class ChoiceAboveChance(Metric):
    """`(hits - sum c) / sqrt(sum c (1 - c))` with `c = 1 / options` of each row: beyond +-1.96, not a guesser.

    A row's own number is `hit - c`.
    """

    needs = frozenset({"choices"})
    chance = 0.0
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In (-1, 1)."""
        right = takes_right_option(item)
        if len(item.choice_logp) == 1:
            raise Absent("rows with a single option")
        return float(right) - 1 / len(item.choice_logp)

    @classmethod
    def aggregate(cls, values: Numbers, weights: Numbers | None = None) -> Numbers:
        """Standard errors: a hit has the value 1 - c and a miss -c, so |v| (1 - |v|) is c (1 - c) for both."""
        size = np.abs(values)
        with np.errstate(divide="ignore"):
            variance = size * (1 - size)
            if weights is None:
                return np.asarray(values.sum(axis=-1) / np.sqrt(variance.sum(axis=-1)))
            errors: Numbers = (weights @ values) / np.sqrt(weights @ variance)
        return errors
