"""Bootstrap and Wilson intervals, of independent rows and of rows about the same person."""

import numpy as np
import pytest
from scipy.stats import binomtest

from expunge.numerics.intervals import (
    DRAWS,
    bootstrap_interval,
    clustered,
    design_effect,
    mean_band,
    resampled_weights,
    share_interval,
)


def people(count: int, rows: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Answers that are right or wrong for each person more than by chance; the true share over all persons is 0.5."""
    generator = np.random.default_rng(seed)
    shares = generator.beta(1, 1, count)
    right = generator.random((count, rows)) < shares[:, None]
    return right.ravel().astype(float), [f"person {index}" for index in range(count) for _ in range(rows)]


def test_independent_rows_are_the_plain_bootstrap() -> None:
    values = np.random.default_rng(1).random(30)
    draws = np.random.default_rng(0).integers(30, size=(DRAWS, 30))
    expected = np.quantile(values[draws].mean(1), [0.025, 0.975])
    assert bootstrap_interval(values, None, 0) == pytest.approx(expected)
    assert bootstrap_interval(values, [None] * 30, 0) == pytest.approx(expected)
    mean, low, high = mean_band(np.stack([values, values * 2], axis=1), 0)
    assert [low, high] == pytest.approx(np.stack([expected, expected * 2], axis=1))
    assert mean == pytest.approx([values.mean(), 2 * values.mean()])


@pytest.mark.parametrize(("hits", "rows"), [(0, 25), (2, 25), (13, 40), (40, 40), (1, 1)])
def test_independent_shares_are_wilsons(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    values = np.array([1.0] * hits + [0.0] * (rows - hits))
    assert share_interval(values) == pytest.approx((expected.low, expected.high))
    assert share_interval(values)[0] == 0 or hits


def test_intervals_by_cluster_cover_what_intervals_by_row_miss() -> None:
    """30 persons with eight questions each, 300 times: 95% of the intervals by person hold the true share."""
    hits = np.zeros(4)
    for seed in range(300):
        values, persons = people(30, 8, seed)
        found = (
            bootstrap_interval(values, None, 0),
            bootstrap_interval(values, persons, 0),
            share_interval(values),
            share_interval(values, persons),
        )
        hits += [low <= 0.5 <= high for low, high in found]
    rows, clusters, rows_share, clusters_share = hits / 300
    assert max(rows, rows_share) < 0.8
    assert 0.92 <= min(clusters, clusters_share) <= max(clusters, clusters_share) <= 0.98


def test_equal_rows_of_a_person_are_one_row() -> None:
    """Each person's row five times: the interval is that of the persons, the design effect that of 5 (n - 1) rows."""
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    five, persons = np.repeat(values, 5), [person for person in range(10) for _ in range(5)]
    assert bootstrap_interval(five, persons, 0) == pytest.approx(bootstrap_interval(values, None, 0))
    assert design_effect(five, persons) == pytest.approx(49 / 9)
    assert design_effect(values, None) == 1
    weights = resampled_weights(persons, 3)
    assert (weights.reshape(DRAWS, 10, 5) == weights.reshape(DRAWS, 10, 5)[..., :1]).all()
    assert (weights.sum(1) == 50).all()


def test_a_single_person_is_told_by_rows() -> None:
    """Nothing can be said of other persons: the interval is about this one's rows, and no cluster is counted."""
    values = np.array([0.2, 0.4, 0.9, 0.1])
    assert bootstrap_interval(values, ["Ada"] * 4, 0) == bootstrap_interval(values, None, 0)
    assert clustered(["Ada"] * 4) is None
    assert clustered(["Ada", "Ada", "Bob", None]) == 3
    assert clustered(["Ada", "Bob"]) is None
