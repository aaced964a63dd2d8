"""The relaxed null space, in float64, on inputs whose directions are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.combine._projection import ProjectionConfig, relax

SIZE = 24
RULES: tuple[dict[str, Any], ...] = (
    {"rule": "energy", "energy": 0.05},
    {"rule": "abs", "tau": 0.1},
    {"rule": "ratio", "ratio": 30.0},
    {"rule": "rank", "rank": 0.25},
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moment_of(inputs: Tensor) -> Tensor:
    """(d, N) -> (d, d)."""
    return inputs @ inputs.T / inputs.shape[1]


def matrix_of(moment: Tensor, **options: Any) -> Tensor:
    """P itself."""
    return relax(moment, ProjectionConfig.model_validate(options))(torch.eye(len(moment), dtype=moment.dtype))


@pytest.fixture
def uneven() -> Tensor:
    """The moment of a rotated spectrum that falls by a factor of 1000."""
    rotation = torch.linalg.qr(randn(SIZE, SIZE)).Q
    return rotation @ torch.diag(torch.logspace(0, -3, SIZE, dtype=torch.float64)) @ rotation.T


@pytest.mark.parametrize(
    ("options", "free"),
    [
        ({"rule": "energy", "energy": 0.05}, 1),
        ({"rule": "energy", "energy": 0.2}, 2),
        ({"rule": "abs", "tau": 2.0}, 2),
        ({"rule": "ratio", "ratio": 3.0}, 2),
        ({"rule": "rank", "rank": 0.75}, 3),
    ],
)
def test_each_rule_by_hand(options: dict[str, Any], free: int) -> None:
    """Eigenvalues 1, 2, 7, 10: shares 5%, 15%, 50%, 100% when added up; all rules take them from below."""
    moment = torch.diag(torch.tensor([7.0, 1.0, 10.0, 2.0], dtype=torch.float64))
    order = [1, 3, 0, 2]
    expected = torch.zeros(4, dtype=torch.float64)
    expected[order[:free]] = 1
    torch.testing.assert_close(matrix_of(moment, **options), torch.diag(expected))


def test_the_soft_filter_by_hand() -> None:
    """tau / (eigenvalue + tau) with tau = 1 on eigenvalues 0, 1, 3: 1, 1/2, 1/4."""
    moment = torch.diag(torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64))
    expected = torch.diag(torch.tensor([1, 0.5, 0.25], dtype=torch.float64))
    torch.testing.assert_close(matrix_of(moment, rule="soft", tau=1.0), expected)


@pytest.mark.parametrize("options", RULES)
def test_it_is_an_orthogonal_projection_on_the_free_directions(uneven: Tensor, options: dict[str, Any]) -> None:
    projection = relax(uneven, ProjectionConfig.model_validate(options))
    matrix = matrix_of(uneven, **options)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix @ matrix, matrix)
    assert 0 < projection.share < 1
    assert matrix.trace().item() == pytest.approx(projection.share * SIZE)
    assert projection.basis.shape[1] <= SIZE / 2


def test_exact_null_space_leaves_what_inputs_give() -> None:
    inputs = randn(SIZE, 9, seed=1) @ randn(9, 100, seed=2)
    weight, change = randn(5, SIZE, seed=3), 100 * randn(5, SIZE, seed=4)
    projection = relax(moment_of(inputs), ProjectionConfig(energy=0))
    assert projection.share == (SIZE - 9) / SIZE
    assert (projection(torch.eye(SIZE, dtype=torch.float64)) @ inputs).norm() / inputs.norm() < 1e-10
    torch.testing.assert_close((weight + projection(change)) @ inputs, weight @ inputs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("options", [{"energy": 1.0}, {"rho": 1.0}, {"rule": "rank", "rank": 1.0}])
def test_fully_relaxed_it_is_the_identity(uneven: Tensor, options: dict[str, Any]) -> None:
    assert torch.equal(matrix_of(uneven, **options), torch.eye(SIZE, dtype=torch.float64))


def test_rho_lets_its_share_through() -> None:
    inputs = randn(SIZE, 9, seed=1) @ randn(9, 100, seed=2)
    change, rho = randn(5, SIZE, seed=3), 0.3
    projection = relax(moment_of(inputs), ProjectionConfig(energy=0, rho=rho))
    torch.testing.assert_close(projection(change) @ inputs, rho * change @ inputs)


def test_a_larger_share_of_energy_frees_more_and_holds_no_more_than_it_says(uneven: Tensor) -> None:
    before = torch.zeros_like(uneven)
    for energy in (1e-4, 1e-3, 1e-2, 0.1, 0.5):
        matrix = matrix_of(uneven, energy=energy)
        assert (matrix @ uneven).trace() / uneven.trace() <= energy
        torch.testing.assert_close(matrix @ before, before, rtol=0, atol=1e-12)
        assert matrix.trace() >= before.trace()
        before = matrix
    assert before.trace() > 10


def test_the_drift_is_that_of_the_free_eigenvalues() -> None:
    """E ||D P x||^2 is the sum over free i of lambda_i ||D u_i||^2, at most the largest of them times ||D P||^2."""
    spread = torch.logspace(0, -2, SIZE, dtype=torch.float64)
    inputs = torch.linalg.qr(randn(SIZE, SIZE)).Q @ (spread[:, None] * randn(SIZE, 500, seed=1))
    moment, change = moment_of(inputs), randn(5, SIZE, seed=2)
    projection = relax(moment, ProjectionConfig(energy=0.01))
    drift = (projection(change) @ inputs).square().sum(0).mean()
    values, vectors = torch.linalg.eigh(moment)
    free = round(projection.share * SIZE)
    assert 0 < free < SIZE
    by_direction = values[:free] * (change @ vectors[:, :free]).square().sum(0)
    torch.testing.assert_close(drift, by_direction.sum())
    assert drift <= values[free - 1] * projection(change).square().sum()


@pytest.mark.parametrize("energy", [1e-3, 1e-2])
def test_ten_tokens_an_input_hold_for_others_too(energy: float) -> None:
    """Held-out inputs of the same kind have at most 1.5 times the energy in it; with one an input it is several times.

    This is why fewer tokens than inputs are refused, and fewer than ten times as many warned of.
    """
    size = 64
    mixing = torch.linalg.qr(randn(size, size)).Q @ torch.diag(torch.logspace(0, -2, size, dtype=torch.float64))
    held_out = moment_of(mixing @ randn(size, 20_000, seed=5))

    def excess(count: int) -> float:
        matrix = matrix_of(moment_of(mixing @ randn(size, count, seed=6)), energy=energy)
        return float((matrix @ held_out).trace() / held_out.trace()) / energy

    assert excess(10 * size) <= 1.5
    assert excess(size) > 3
