"""Membership inference: does one number per row separate rows that were trained on from rows that were not?

The numbers are those of the row metrics `mia_*`. Set metrics and the attack `membership` are views of these functions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from expunge.evaluate.base import RowNumbers, SetValues, rows_of
from expunge.numerics.intervals import Numbers, clustered, resampled_weights


def win_shares(members: Numbers, others: Numbers) -> Numbers:
    """(M,), (N,) -> (M,): for each member the share of the others above it, ties counting half; its mean is the AUC."""
    shares: Numbers = _wins(members, others).mean(axis=1)
    return shares


def flagged(members: Numbers, others: Numbers, rate: float) -> Numbers:
    """(M,), (N,) -> (M,): 1 for members below a threshold that at most a share `rate` of the others is below."""
    flags: Numbers = (members < _thresholds(others, np.ones((1, len(others))), rate)[0]).astype(np.float64)
    return flags


class Sides(NamedTuple):
    """Attack values, higher for rows that look less like members; intervals resample each side separately."""

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

    def auc(self) -> float:
        """P(a holdout row's value is above a forget row's), ties counting half: 1 if members are recognised."""
        return float(_wins(self.members.numbers, self.others.numbers).mean())

    def auc_draws(self, seed: int) -> Numbers:
        """(DRAWS,) AUCs of resampled rows; one seed draws the same rows for every attack."""
        members, others = self._weights(seed)
        pairs = members.sum(axis=1) * others.sum(axis=1)
        wins = _wins(self.members.numbers, self.others.numbers)
        drawn: Numbers = np.einsum("dm,dm->d", members, others @ wins.T) / pairs
        return drawn

    def tpr(self, rate: float) -> float:
        """Share of the members that are `flagged`: the true-positive rate at a false-positive rate of `rate`."""
        return float(flagged(self.members.numbers, self.others.numbers, rate).mean())

    def tpr_draws(self, rate: float, seed: int) -> Numbers:
        """(DRAWS,) true-positive rates of resampled rows."""
        members, others = self._weights(seed)
        below = self.members.numbers < _thresholds(self.others.numbers, others, rate)[:, None]
        drawn: Numbers = (members * below).sum(axis=1) / members.sum(axis=1)
        return drawn

    def _weights(self, seed: int) -> tuple[Numbers, Numbers]:
        """(DRAWS, M) and (DRAWS, N): how often each row counts."""
        members, others = (
            resampled_weights(side.clusters or len(side.numbers), seed + place) for place, side in enumerate(self)
        )
        return members, others


def sides(values: SetValues | None, metric: str, whose: str = "") -> Sides | str:
    """Forget rows against holdout rows, or the reason why they cannot be compared.

    Args:
        values: of one model; None if there is no such model.
        metric: name of an attack.
        whose: the model's name in the reason, e.g. `retrained reference: `.
    """
    if values is None:
        return f"{whose}not given"
    found = Sides(rows_of(values, "forget", metric), rows_of(values, "holdout", metric))
    for side, role in zip(found, ("forget", "holdout"), strict=True):
        if not len(side.numbers):
            return f"{whose}no {role} rows with {metric}"
    return found


def _wins(members: Numbers, others: Numbers) -> Numbers:
    """(M, N): 1 if the other row is above, 0.5 for a tie."""
    wins: Numbers = (np.sign(others[None, :] - members[:, None]) + 1) / 2
    return wins


def _thresholds(others: Numbers, weights: Numbers, rate: float) -> Numbers:
    """(N,), (D, N) -> (D,): the lowest of the others that may not be flagged, given how often each of them counts."""
    order = np.argsort(others, kind="stable")
    up_to = weights[:, order].cumsum(axis=1)
    first = (up_to > np.floor(rate * up_to[:, -1:] + 1e-9)).argmax(axis=1)
    thresholds: Numbers = others[order][first]
    return thresholds
