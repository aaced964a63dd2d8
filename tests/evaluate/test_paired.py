"""Paired comparison: worked by hand, and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, permutation_test, t, ttest_1samp

from expunge.evaluate.metrics.perplexity import Perplexity
from expunge.evaluate.metrics.probability import Probability
from expunge.evaluate.paired import holm, over_seeds, paired, swap_test

MEAN = Probability.aggregate


def rows(*values: float) -> NDArray[np.float64]:
    return np.array([values])


def test_by_hand() -> None:
    """Gaps 1, 1, 1, 3: mean 1.5, sd 1, so dz = 1.5; all rows rise: dominance 1.

    Of 16 ways to swap, only all and none give +-1.5: p = 2/16.
    """
    found = paired(rows(0, 0, 0, 0), rows(1, 1, 1, 3), MEAN, 0)
    assert (found.n, found.first, found.second, found.difference) == (4, 0, 1.5, 1.5)
    assert (found.dz, found.dominance, found.p) == (pytest.approx(1.5), 1.0, 2 / 16)
    assert (found.low, found.high) == (1.0, 2.5)
    assert found.shown


def test_rows_that_go_both_ways() -> None:
    """Two rise, one falls, one stays: dominance 1/4. Gaps 1, 1, -2, 0: no difference of means, p = 1."""
    found = paired(rows(0, 0, 2, 5), rows(1, 1, 0, 5), MEAN, 0)
    assert (found.difference, found.dominance, found.p, found.shown) == (0, 0.25, 1.0, False)


def test_no_difference_at_all() -> None:
    found = paired(rows(0.1, 0.2, 0.3), rows(0.1, 0.2, 0.3), MEAN, 0)
    assert (found.difference, found.low, found.high, found.p, found.dz) == (0, 0, 0, 1.0, None)
    assert not found.shown
    shifted = paired(rows(0.1, 0.2, 0.3), rows(0.2, 0.3, 0.4), MEAN, 0)
    assert shifted.dz is None
    assert shifted.p == 2 / 8


@pytest.mark.parametrize("seed", range(3))
def test_exact_p_against_scipy(seed: int) -> None:
    """All 2^10 patterns: scipy's number to the last digit. More rows than that: near it, from other patterns."""
    generator = np.random.default_rng(seed)
    for count, tolerance in ((10, 1e-12), (80, 0.02)):
        first, second = generator.normal(0, 1, (2, count))
        second += 0.3
        expected = permutation_test(
            (second - first,),
            lambda gap, axis: gap.mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
            random_state=seed,
        ).pvalue
        assert swap_test(first, second, MEAN, seed) == pytest.approx(expected, abs=tolerance)


def test_p_is_near_the_t_test_for_normal_gaps() -> None:
    generator = np.random.default_rng(0)
    gaps = generator.normal(0.15, 1, 300)
    assert swap_test(np.zeros(300), gaps, MEAN, 0) == pytest.approx(ttest_1samp(gaps, 0).pvalue, abs=0.01)


def test_interval_against_scipy() -> None:
    first, second = np.random.default_rng(1).normal(0, 1, (2, 60))
    found = paired(first[None], second[None], MEAN, 0)
    expected = bootstrap(
        (second - first,), np.mean, method="percentile", n_resamples=4000, random_state=2
    ).confidence_interval
    assert [found.low, found.high] == pytest.approx([expected.low, expected.high], abs=0.03)


def test_seeds_widen_the_interval_and_their_mean_counts() -> None:
    """Three runs whose scores are 0, 1, 2 on every row: rows leave no doubt, runs do."""
    first = np.zeros((1, 20))
    one = paired(first, np.ones((1, 20)), MEAN, 0)
    three = paired(first, np.array([[0.0], [1.0], [2.0]]) * np.ones((3, 20)), MEAN, 0)
    assert one.difference == three.difference == 1
    assert (one.low, one.high) == (1, 1)
    assert (three.low, three.high) == (0, 2)
    assert not three.shown


def test_another_aggregate() -> None:
    """Perplexities 1 and 16 against 4 and 4: equal geometric means. Swaps of one row give a factor of 4 or 1/4."""
    found = paired(rows(1, 16), rows(4, 4), Perplexity.aggregate, 0)
    assert found.difference == pytest.approx(0, abs=1e-12)
    assert found.p == 1
    up = paired(rows(1, 1, 1), rows(2, 2, 2), Perplexity.aggregate, 0)
    assert (up.first, up.second, up.p) == (pytest.approx(1), pytest.approx(2), 2 / 8)


def test_holm_by_hand() -> None:
    """.01, .04, .03, .005 in order: 4 * .005 = .02, 3 * .01 = .03, 2 * .03 = .06, and .04 may not be below it: .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_what_the_closed_test_does() -> None:
    """Holm is the closure of Bonferroni: an entry is rejected if every set of hypotheses that holds it is.

    The smallest level at which that happens is the largest over those sets of their size times their smallest p.
    """
    p = np.random.default_rng(0).uniform(0, 0.2, 6)
    for place, corrected in enumerate(holm([*p])):
        others = [other for other in range(6) if other != place]
        sets = [(place, *some) for size in range(6) for some in itertools.combinations(others, size)]
        expected = max(min(1.0, len(some) * min(p[list(some)])) for some in sets)
        assert corrected == pytest.approx(expected)


def test_over_seeds() -> None:
    """1, 2, 3: mean 2, sd 1, and t at 97.5% with two degrees of freedom is 4.3027: +- 4.3027 / sqrt 3."""
    found = over_seeds([1, 2, 3])
    low, high = t.interval(0.95, 2, loc=2, scale=1 / np.sqrt(3))
    assert (found.mean, found.low, found.high) == pytest.approx((2, low, high))
    assert found.high == pytest.approx(2 + 4.3027 / np.sqrt(3), abs=1e-4)
    assert over_seeds([0.4]) == (0.4, None, None)
