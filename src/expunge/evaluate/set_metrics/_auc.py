"""How well one number a row tells rows that were trained on from rows that were not, with a bootstrap over rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from expunge.evaluate.base import SetValues

Numbers = NDArray[np.float64]

DRAWS = 2000


class Sides(NamedTuple):
    """Attack values, higher for rows that look less like members."""

    members: Numbers
    others: Numbers


def sides(values: SetValues | None, metric: str, whose: str = "") -> Sides | str:
    """Forget rows against holdout rows, or the reason why they cannot be compared.

    Args:
        values: of one model; None where there is none.
        metric: name of an attack.
        whose: what to call the model in the reason, e.g. `retrained reference: `.
    """
    if values is None:
        return f"{whose}not given"
    found = [values.get(role, {}).get(metric, np.array([])) for role in ("forget", "holdout")]
    for numbers, role in zip(found, ("forget", "holdout"), strict=True):
        if not len(numbers):
            return f"{whose}no {role} rows with {metric}"
    return Sides(*found)


def auc(both: Sides) -> float:
    """P(a holdout row's value is above a forget row's), ties half: 1 when members are told apart, 0.5 by chance."""
    return float(_wins(both).mean())


def auc_draws(both: Sides, seed: int) -> Numbers:
    """The same of resampled rows, members and others apart: (DRAWS,). One seed draws the same rows for each attack."""
    generator = np.random.default_rng(seed)
    members, others = (_weights(len(side), generator) for side in both)
    drawn: Numbers = np.einsum("dm,dm->d", members, others @ _wins(both).T)
    return drawn


def tpr_draws(both: Sides, rate: float, seed: int) -> tuple[float, Numbers]:
    """Share of members below a threshold that at most a share `rate` of the others is below: as it is, and resampled.

    Returns:
        The share, and (DRAWS,) shares.
    """
    generator = np.random.default_rng(seed)
    members, others = (side[generator.integers(len(side), size=(DRAWS, len(side)))] for side in both)
    return float(_tpr(both.members[None], both.others[None], rate)[0]), _tpr(members, others, rate)


def interval(draws: Numbers) -> tuple[float, float]:
    """95% percentile interval."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _tpr(members: Numbers, others: Numbers, rate: float) -> Numbers:
    """(D, M), (D, N) -> (D,): flagged is what lies below the first other row that may not be flagged any more."""
    allowed = int(rate * others.shape[1] + 1e-9)
    threshold = np.partition(others, allowed, axis=1)[:, allowed : allowed + 1]
    share: Numbers = (members < threshold).mean(axis=1)
    return share


def _wins(both: Sides) -> Numbers:
    """(M, N): 1 where the other row is above, 0.5 for a tie."""
    gap = both.others[None, :] - both.members[:, None]
    wins: Numbers = (np.sign(gap) + 1) / 2
    return wins


def _weights(count: int, generator: np.random.Generator) -> Numbers:
    """(DRAWS, count): share of each row in each resample."""
    weights: Numbers = generator.multinomial(count, [1 / count] * count, size=DRAWS) / count
    return weights
