"""Claims: verdicts by Student's t intervals, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp, ttest_rel

from expunge.reports.claims import Claim, Where, interval, judge

COLUMNS = {"x": "x", "ratio": "ratio"}


def runs(**values: dict[float, list[float | None]]) -> dict[str, dict[float, list[dict[str, Any]]]]:
    """Method -> strength -> records that hold x, and twice the strength as ratio."""
    return {
        method: {
            strength: [{"x": value, "ratio": 2 * strength} for value in some] for strength, some in by_strength.items()
        }
        for method, by_strength in values.items()
    }


def claim(**given: Any) -> Claim:
    return Claim(says="So it is", of="x", method="a", **given)


def test_an_interval_is_students() -> None:
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027, so 2 +- 2.4841."""
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 2.4841, abs=1e-4)
    theirs = ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))
    assert interval([5.0]).high == math.inf
    same = interval([5.0, 5.0])
    assert (same.low, same.high) == (5, 5)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([0.1, 0.11, 0.12], "holds"), ([0.7, 0.71, 0.72], "does not hold"), ([0.1, 0.5, 0.9], "no difference shown")],
)
def test_a_number_is_passed_clearly_or_not(values: list[float | None], verdict: str) -> None:
    assert judge(claim(below=0.5), runs(a={1.0: values}), COLUMNS).verdict == verdict
    turned = {"holds": "does not hold", "does not hold": "holds"}.get(verdict, verdict)
    assert judge(claim(above=0.5), runs(a={1.0: values}), COLUMNS).verdict == turned


def test_two_methods_are_compared_seed_by_seed() -> None:
    """Differences 0.1, 0.11, 0.12 are clear of 0 although the methods' own intervals overlap."""
    ours, theirs = [0.3, 0.61, 0.92], [0.2, 0.5, 0.8]
    found = judge(claim(above="b"), runs(a={1.0: ours}, b={2.0: theirs}), COLUMNS)
    assert found.verdict == "holds"
    assert found.evidence == "difference 0.11 [0.09, 0.13]; a 0.61, b 0.50, 3 seeds"
    low = ttest_rel(ours, theirs).confidence_interval().low
    assert low == pytest.approx(interval([0.1, 0.11, 0.12]).low)


def test_several_strengths_of_a_seed_are_one_number() -> None:
    """Three draws of a random place are one control: 0.2, 0.4 and 0.6 count as 0.4."""
    control: dict[float, list[float | None]] = {0: [0.2, 0.21], 1: [0.4, 0.4], 2: [0.6, 0.59]}
    found = judge(claim(below="b"), runs(a={1.0: [0.3, 0.3]}, b=control), COLUMNS)
    assert found.verdict == "holds"
    assert "b 0.40" in found.evidence


@pytest.mark.parametrize("values", [[0.1], [0.1, None]])
def test_one_seed_or_an_absent_value_shows_nothing(values: list[float | None]) -> None:
    assert judge(claim(below=0.5), runs(a={1.0: values}), COLUMNS).verdict == "no difference shown"


def test_a_trend_is_the_rank_correlation_of_each_seed() -> None:
    curve: dict[float, list[float | None]] = {1: [0.1, 0.2, 0.1], 2: [0.3, 0.4, 0.2], 4: [0.35, 0.3, 0.5]}
    found = judge(claim(along="rises"), runs(a=curve), COLUMNS)
    second = spearmanr([1, 2, 4], [0.2, 0.4, 0.3]).statistic
    assert interval([1.0, second, 1.0]).text() in found.evidence
    assert found.verdict == interval([1.0, second, 1.0]).side(0.0, above=True)
    clear: dict[float, list[float | None]] = {1: [0.1, 0.2], 2: [0.3, 0.4], 4: [0.35, 0.5]}
    assert judge(claim(along="rises"), runs(a=clear), COLUMNS).verdict == "holds"
    assert judge(claim(along="falls"), runs(a=clear), COLUMNS).verdict == "does not hold"
    flat: dict[float, list[float | None]] = {1: [0.1, 0.1], 2: [0.1, 0.1]}
    assert judge(claim(along="rises"), runs(a=flat), COLUMNS).verdict == "does not hold"


def test_a_share_of_strengths() -> None:
    """Clearly below 0.5 at three of four places; the fourth straddles it and counts for neither side."""
    curve: dict[float, list[float | None]] = {
        2: [0.1, 0.11, 0.1],
        5: [0.2, 0.2, 0.21],
        8: [0.3, 0.3, 0.3],
        11: [0.1, 0.5, 0.9],
    }
    verdicts = [judge(claim(below=0.5, share=share), runs(a=curve), COLUMNS).verdict for share in (0.75, 0.9)]
    assert verdicts == ["holds", "no difference shown"]
    found = judge(claim(below=0.5, share=0.9), runs(a={**curve, 14: [0.8, 0.81, 0.8]}), COLUMNS)
    assert found.verdict == "does not hold"
    assert found.evidence == "clearly at 3 of 5 strengths, clearly not at 1 (not clearly at 11, 14)"


def test_strengths_are_picked_by_another_column() -> None:
    """The ratio is twice the strength: above 5 lie 5 and 8."""
    curve: dict[float, list[float | None]] = {2: [0.9, 0.9], 5: [0.1, 0.1], 8: [0.2, 0.2]}
    above = claim(below=0.5, share=1.0, where=Where(of="ratio", above=5.0))
    assert judge(above, runs(a=curve), COLUMNS).evidence == "clearly at 2 of 2 strengths, clearly not at 0"
    below = claim(above=0.5, share=1.0, where=Where(of="ratio", below=5.0))
    assert judge(below, runs(a=curve), COLUMNS).verdict == "holds"
    nowhere = claim(above=0.5, share=1.0, where=Where(of="ratio", above=50.0))
    assert judge(nowhere, runs(a=curve), COLUMNS).verdict == "no difference shown"


def test_intervals_hold_their_mean_at_the_promised_rate() -> None:
    """Of 400 means of three normal draws 95% lie in their interval; 4 binomial deviations are 0.044."""
    draws = np.random.default_rng(0).normal(1.0, 0.3, size=(400, 3))
    found = [interval(some.tolist()) for some in draws]
    assert abs(np.mean([one.low < 1 < one.high for one in found]) - 0.95) < 0.044


@pytest.mark.parametrize(
    "given", [{}, {"above": 1.0, "below": 0.0}, {"above": "b", "share": 0.5}, {"above": 1.0, "where": {"of": "x"}}]
)
def test_a_claim_of_no_meaning_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give one|needs"):
        claim(**given)
