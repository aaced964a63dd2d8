"""How well one number a row tells rows that were trained on from rows that were not, with a bootstrap over rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from expunge.evaluate.base import RowNumbers, SetValues
from expunge.numerics.intervals import Numbers, clustered, resampled_weights


class Sides(NamedTuple):
    """Attack values, higher for rows that look less like members."""

    members: RowNumbers
    others: RowNumbers

    @property
    def num_rows(self) -> int:
        """Rows of both sides."""
        return len(self.members.numbers) + len(self.others.numbers)

    @property
    def clusters(self) -> int | None:
        """As `Score.clusters`."""
        units = [clustered(side.clusters) for side in self]
        if units == [None, None]:
            return None
        return sum(len(side.numbers) if own is None else own for side, own in zip(self, units, strict=True))


def sides(values: SetValues | None, metric: str, whose: str = "") -> Sides | str:
    """Forget rows against holdout rows, or the reason why they cannot be compared.

    Args:
        values: of one model; None where there is none.
        metric: name of an attack.
        whose: what to call the model in the reason, e.g. `retrained reference: `.
    """
    if values is None:
        return f"{whose}not given"
    found = [values.get(role, {}).get(metric, RowNumbers(np.array([]))) for role in ("forget", "holdout")]
    for side, role in zip(found, ("forget", "holdout"), strict=True):
        if not len(side.numbers):
            return f"{whose}no {role} rows with {metric}"
    return Sides(*found)


def auc(both: Sides) -> float:
    """P(a holdout row's value is above a forget row's), ties half: 1 when members are told apart, 0.5 by chance."""
    return float(_wins(both).mean())


def auc_draws(both: Sides, seed: int) -> Numbers:
    """The same of resampled rows, members and others apart: (DRAWS,). One seed draws the same rows for each attack."""
    members, others = _weights(both, seed)
    pairs = members.sum(axis=1) * others.sum(axis=1)
    drawn: Numbers = np.einsum("dm,dm->d", members, others @ _wins(both).T) / pairs
    return drawn


def tpr_draws(both: Sides, rate: float, seed: int) -> tuple[float, Numbers]:
    """Share of members below a threshold that at most a share `rate` of the others is below: as it is, and resampled.

    Returns:
        The share, and (DRAWS,) shares.
    """
    once = np.ones((1, len(both.members.numbers))), np.ones((1, len(both.others.numbers)))
    return float(_tpr(both, once, rate)[0]), _tpr(both, _weights(both, seed), rate)


def _tpr(both: Sides, weights: tuple[Numbers, Numbers], rate: float) -> Numbers:
    """Flagged is what lies below the lowest of the others that may not be flagged any more.

    Args:
        both: values.
        weights: (D, M) how often each member counts, and (D, N) the same of the others.
        rate: share of the others that may be flagged.
    """
    members, others = weights
    order = np.argsort(both.others.numbers, kind="stable")
    up_to = others[:, order].cumsum(axis=1)
    first = (up_to > np.floor(rate * up_to[:, -1:] + 1e-9)).argmax(axis=1)
    threshold = both.others.numbers[order][first][:, None]
    flagged: Numbers = (members * (both.members.numbers < threshold)).sum(axis=1) / members.sum(axis=1)
    return flagged


def _wins(both: Sides) -> Numbers:
    """(M, N): 1 where the other row is above, 0.5 for a tie."""
    gap = both.others.numbers[None, :] - both.members.numbers[:, None]
    wins: Numbers = (np.sign(gap) + 1) / 2
    return wins


def _weights(both: Sides, seed: int) -> tuple[Numbers, Numbers]:
    """(DRAWS, M) and (DRAWS, N): how often each row of a side counts, the two sides drawn apart."""
    members, others = (
        resampled_weights(side.clusters or len(side.numbers), seed + place) for place, side in enumerate(both)
    )
    return members, others
