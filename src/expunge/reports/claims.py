"""Whether the claims of a paper hold in the runs of a reproduction, by 95% intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from expunge.core.records import Frozen
from expunge.reports.formats import interval_text, number
from expunge.reports.quantities import Column, value_of

Verdict = Literal["holds", "does not hold", "no difference shown"]
Direction = Literal["rises", "falls"]


class Where(Frozen):
    """Strengths at which another column lies on one side of a number, by its mean over seeds."""

    of: str = Field(description="Heading of the column")
    above: float = Field(-math.inf, description="The mean is larger")
    below: float = Field(math.inf, description="The mean is not larger")


class Claim(Frozen):
    """One sentence of a paper as a statement about one column of one method."""

    says: str = Field(description="The claim, in words")
    of: str = Field(description="Heading of the column")
    method: str
    above: float | str | None = Field(None, description="The column lies above a number, or above another method's")
    below: float | str | None = Field(None, description="The same below")
    along: Direction | None = Field(None, description="The column rises, or falls, with the strength")
    share: float | None = Field(
        None, gt=0, le=1, description="With above or below a number: true at this share of the strengths, or more"
    )
    where: Where | None = Field(None, description="With share: count these strengths only")

    @model_validator(mode="after")
    def _one(self) -> Claim:
        if [self.above, self.below, self.along].count(None) != 2:
            raise ValueError("give one of above, below and along")
        if isinstance(self.bound, str) and self.share:
            raise ValueError("share needs a number to be above or below")
        if self.where and not self.share:
            raise ValueError("where needs share")
        return self

    @property
    def bound(self) -> float | str | None:
        """The number or method that the column is compared with."""
        return self.below if self.above is None else self.above

    @property
    def columns(self) -> tuple[str, ...]:
        """Headings that it reads."""
        return (self.of, self.where.of) if self.where else (self.of,)


class Judged(NamedTuple):
    """A claim with the verdict of the runs."""

    claim: Claim
    verdict: Verdict
    evidence: str


class Interval(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float
    n: int

    def side(self, bound: float, *, above: bool) -> Verdict:
        """Whether all of it lies on the claimed side, on the other, or neither."""
        inside, outside = (self.low > bound, self.high <= bound) if above else (self.high < bound, self.low >= bound)
        return "holds" if inside else "does not hold" if outside else "no difference shown"

    def text(self) -> str:
        """`0.05 [0.01, 0.09]`."""
        if math.isinf(self.low):
            return f"{number(self.mean)} (one seed, no interval)"
        return interval_text(self.mean, self.low, self.high)


Strengths = Mapping[float, Sequence[Any]]
"""Strength -> the records of its seeds, in the order of the seeds."""


def judge(claim: Claim, runs: Mapping[str, Strengths], columns: Mapping[str, Column]) -> Judged:
    """Judge a claim by the reported runs.

    Args:
        claim: about one of the methods.
        runs: method -> its reported runs.
        columns: heading -> its quantity.
    """
    own = _values(runs[claim.method], columns[claim.of])
    if claim.along is not None:
        return _trend(claim, own)
    if claim.share is not None:
        return _shared(claim, claim.share, own, runs[claim.method], columns)
    means = _by_seed(own)
    bound, against = claim.bound, ""
    if isinstance(bound, str):
        others = _by_seed(_values(runs[bound], columns[claim.of]))
        against = f"; {claim.method} {_average(means)}, {bound} {_average(others)}"
        means = [
            None if one is None or other is None else one - other for one, other in zip(means, others, strict=True)
        ]
        bound = 0.0
    assert bound is not None
    if None in means:
        return Judged(claim, "no difference shown", "absent in some runs")
    found = interval([value for value in means if value is not None])
    what = f"difference {found.text()}{against}" if against else f"{found.text()} against {bound:g}"
    return Judged(claim, found.side(bound, above=claim.above is not None), f"{what}, {found.n} seeds")


def interval(values: Sequence[float]) -> Interval:
    """Student's t interval of a mean; infinite for a single value."""
    from scipy.stats import sem, t

    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf, len(values))
    reach = float(t.ppf(0.975, len(values) - 1) * sem(values))
    return Interval(mean, mean - reach, mean + reach, len(values))


def _trend(claim: Claim, own: Mapping[float, Sequence[float | None]]) -> Judged:
    """Spearman's rank correlation of strength and column, one for each seed."""
    from scipy.stats import rankdata

    correlations = []
    for some in zip(*own.values(), strict=True):
        known = [(strength, value) for strength, value in zip(own, some, strict=True) if value is not None]
        first, second = (rankdata(side) - (len(known) + 1) / 2 for side in zip(*known, strict=True))
        scale = math.sqrt(float(first @ first) * float(second @ second))
        correlations.append(float(first @ second) / scale if scale else 0.0)
    found = interval(correlations)
    places = ", ".join(f"{_average(some)} at {strength:g}" for strength, some in own.items())
    text = f"rank correlation {found.text()}, {found.n} seeds: {places}"
    return Judged(claim, found.side(0.0, above=claim.along == "rises"), text)


def _shared(
    claim: Claim,
    share: float,
    own: Mapping[float, Sequence[float | None]],
    runs: Strengths,
    columns: Mapping[str, Column],
) -> Judged:
    """At how many strengths it holds clearly; one whose interval holds the bound counts for neither side."""
    counted = list(own)
    if claim.where is not None:
        others = {strength: _known(some) for strength, some in _values(runs, columns[claim.where.of]).items()}
        counted = [
            strength
            for strength, some in others.items()
            if some and claim.where.above < math.fsum(some) / len(some) <= claim.where.below
        ]
    if not counted:
        return Judged(claim, "no difference shown", "no strength lies there")
    assert isinstance(claim.bound, int | float)
    bound = float(claim.bound)
    found: dict[Verdict, list[float]] = {"holds": [], "does not hold": [], "no difference shown": []}
    for strength in counted:
        known = _known(own[strength])
        side: Verdict = "no difference shown"
        if len(known) == len(own[strength]):
            side = interval(known).side(bound, above=claim.above is not None)
        found[side].append(strength)
    clear, against = len(found["holds"]), len(found["does not hold"])
    verdict: Verdict = "no difference shown"
    if clear >= share * len(counted):
        verdict = "holds"
    elif len(counted) - against < share * len(counted):
        verdict = "does not hold"
    text = f"clearly at {clear} of {len(counted)} strengths, clearly not at {against}"
    missed = sorted([*found["does not hold"], *found["no difference shown"]])
    if missed:
        text += f" (not clearly at {', '.join(f'{strength:g}' for strength in missed)})"
    return Judged(claim, verdict, text)


def _values(runs: Strengths, column: Column) -> dict[float, list[float | None]]:
    return {strength: [value_of(record, column) for record in some] for strength, some in runs.items()}


def _by_seed(values: Mapping[float, Sequence[float | None]]) -> list[float | None]:
    """For each seed the mean over strengths; None where one is absent."""
    means: list[float | None] = []
    for some in zip(*values.values(), strict=True):
        known = _known(some)
        means.append(math.fsum(known) / len(known) if len(known) == len(some) else None)
    return means


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _average(values: Sequence[float | None]) -> str:
    known = _known(values)
    return number(math.fsum(known) / len(known)) if known else "absent"
