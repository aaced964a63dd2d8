"""The statistics behind the choice of a block, on Gaussian samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.numerics.entanglement import (
    Sample,
    jensen_shannon,
    paper_information,
    probe_auc,
    reduced,
    subspace_cosines,
)


def sample(seed: int, count: int = 200, width: int = 24, shift: float = 0.0) -> Sample:
    """Gaussian rows with a falling spectrum, moved by `shift` along every axis."""
    return np.random.default_rng(seed).normal(size=(count, width)) / np.sqrt(np.arange(1, width + 1)) + shift


def rotation(width: int = 24) -> Sample:
    return np.linalg.qr(np.random.default_rng(9).normal(size=(width, width)))[0]


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
def test_neither_scale_nor_rotation_nor_order_matters(shift: float) -> None:
    forget, retain = sample(0), sample(1, shift=shift)
    value = jensen_shannon(forget, retain, 4)
    assert jensen_shannon(1000 * forget, 1000 * retain, 4) == pytest.approx(value, abs=1e-9)
    assert jensen_shannon(forget @ rotation() + 5, retain @ rotation() + 5, 4) == pytest.approx(value, abs=1e-9)
    assert jensen_shannon(retain, forget, 4) == pytest.approx(value, abs=1e-12)
    assert jensen_shannon(forget[::-1], retain, 4) == pytest.approx(value, abs=1e-9)


def test_same_distribution_is_near_zero_and_far_apart_is_ln_2() -> None:
    for seed in range(0, 20, 2):
        assert abs(jensen_shannon(sample(seed), sample(seed + 1), 4)) < 0.12
        assert 0.68 < jensen_shannon(sample(seed), sample(seed + 1, shift=5.0), 4) <= math.log(2)


def test_it_grows_with_distance() -> None:
    values = [jensen_shannon(sample(0), sample(1, shift=shift), 4) for shift in (0.0, 0.2, 0.4, 0.8, 2.0)]
    assert values == sorted(values)


def test_two_points_each_by_hand() -> None:
    """One component, forget at 0 and 1, retain at 3 and 4: deviation sqrt(2.5), bandwidth 2^(-1/5) of it.

    With e(d) = exp(-d^2 / (2 * 2.5 * 2^(-2/5))): p(0) = e(1) without itself, q(0) = (e(3) + e(4)) / 2, and
    q(1) = (e(2) + e(3)) / 2. The sets mirror each other, so the mean over forget is the whole.
    """
    forget, retain = np.array([[0.0], [1.0]]), np.array([[3.0], [4.0]])

    def kernel(distance: float) -> float:
        return math.exp(-(distance**2) / (5 * 2 ** (-2 / 5)))

    own = kernel(1)
    others = ((kernel(3) + kernel(4)) / 2, (kernel(2) + kernel(3)) / 2)
    expected = sum(math.log(2 * own / (own + other)) for other in others) / 2
    assert jensen_shannon(forget, retain, 1) == pytest.approx(expected, abs=1e-12)


def test_a_flat_sample_is_refused() -> None:
    flat = sample(0) * np.array([1.0, 1.0, *[0.0] * 22])
    with pytest.raises(ValueError, match="span fewer than 4 directions"):
        jensen_shannon(flat, flat + 1, 4)
    assert jensen_shannon(flat, flat + 1, 2) > 0


@pytest.mark.parametrize("factor", [3.0, 10.0])
def test_the_papers_heuristic_moves_with_the_scale(factor: float) -> None:
    """By (d_F + d_R - d_J) ln s: activations that only grow with depth change it."""
    forget, retain = sample(0), sample(1, shift=0.5)
    dimensions = reduced(forget).shape[1] + reduced(retain).shape[1]
    dimensions -= reduced(np.concatenate([forget, retain], axis=1)).shape[1]
    assert dimensions != 0
    shift = paper_information(factor * forget, factor * retain) - paper_information(forget, retain)
    assert shift == pytest.approx(dimensions * math.log(factor), abs=1e-9)


def test_the_papers_heuristic_depends_on_which_row_meets_which() -> None:
    forget, retain = sample(0), sample(1)
    assert abs(paper_information(forget, retain) - paper_information(forget[::-1], retain)) > 1e-3


def test_the_papers_heuristic_calls_equal_sets_less_informative_than_independent_ones() -> None:
    """Wrong way round for an information, which is largest between a thing and itself."""
    assert paper_information(sample(0), sample(0)) < paper_information(sample(0), sample(1))


def test_narrow_samples_are_not_reduced() -> None:
    narrow = sample(0, width=10)
    assert reduced(narrow) is narrow
    assert reduced(sample(0, width=11)).shape[1] <= 11


def test_probe_is_blind_to_equal_sets_and_sees_far_ones() -> None:
    assert 0.35 < probe_auc(sample(0), sample(1), 0) < 0.65
    assert probe_auc(sample(0), sample(1, shift=2.0), 0) > 0.99
    assert probe_auc(sample(0), sample(1, shift=0.3), 5) == probe_auc(sample(0), sample(1, shift=0.3), 5)


def test_angles_between_planes_by_hand() -> None:
    """The plane of axes 0 and 1 and that of axis 0 and a line at 60 degrees to axis 1: cosines 1 and 1/2."""
    weights = np.random.default_rng(0).normal(size=(50, 2)) * [3.0, 1.0]
    one, other = np.zeros((2, 6)), np.zeros((2, 6))
    one[0, 0] = one[1, 1] = other[0, 0] = 1.0
    other[1, 1], other[1, 2] = 0.5, math.sqrt(0.75)
    found = subspace_cosines(weights @ one + 7, weights @ other - 3, 2)
    np.testing.assert_allclose(found, [1.0, 0.5], atol=1e-9)
