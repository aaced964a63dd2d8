"""Noise sensitivity and the length c*: the formulas, and both against passes by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steering import LAYER, Rows, context, direction
from torch import Tensor

from expunge.core.errors import UserError
from expunge.diagnose._length import best_coefficient, derivatives
from expunge.diagnose._noise import Profile, profile, sensitivity
from expunge.diagnose._states import one_token, outputs_above
from expunge.diagnose.noise_sensitivity import NoiseSensitivity
from expunge.models.base import LanguageModel


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_linear_map_is_sensitive_to_the_square_of_the_noise_and_to_no_scale() -> None:
    """g(h) = A h: Phi(a xi) = a^2 Phi(xi), Phi(0) = 0, and 7 g has the Phi of g."""
    matrix, state, noise = random(5, 5), random(5, seed=1), random(5, seed=2)

    def phi(scale: float, gain: float = 1) -> float:
        return float(sensitivity(gain * matrix @ state, gain * matrix @ (state + scale * noise)))

    assert phi(0) == 0
    assert phi(3) == pytest.approx(9 * phi(1))
    assert phi(1, gain=7) == pytest.approx(phi(1))
    assert phi(1) == pytest.approx(float((matrix @ noise).square().sum() / (matrix @ state).square().sum()))


def test_the_length_is_the_minimum_by_finite_differences() -> None:
    """d/dc ||J (c u - h)||^2 vanishes at c*, and the value is larger on both sides; J = I gives u . h."""
    jacobian, u, h = random(6, 4), random(4, seed=1), random(4, seed=2)
    u /= u.norm()
    best = float(best_coefficient(jacobian @ u, jacobian @ h))

    def cost(c: float) -> float:
        return float((jacobian @ (c * u - h)).square().sum())

    step = 1e-4
    assert (cost(best + step) - cost(best - step)) / (2 * step) == pytest.approx(0, abs=1e-8)
    assert cost(best) < min(cost(best + 0.1), cost(best - 0.1))
    assert float(best_coefficient(u, h)) == pytest.approx(float(u @ h))
    assert math.isnan(float(best_coefficient(torch.zeros(4), h)))


def test_derivatives_are_finite_differences(tiny: LanguageModel) -> None:
    """The norms compute in float32 even in a float64 model, so the step cannot be small."""
    step = 1e-2
    tiny.network.double()
    state, along = 2 * random(96), [random(96, seed=1), random(96, seed=2)]

    @torch.no_grad()
    def above(entering: Tensor) -> Tensor:
        return torch.stack([out[0, 0] for out in outputs_above(tiny, one_token(tiny), 0, entering[None, None], 2)])

    found = derivatives(tiny, 0, state, along)
    assert found.shape == (2, 2, 96)
    for vector, derivative in zip(along, found, strict=True):
        wanted = (above(state + step * vector) - above(state - step * vector)) / (2 * step)
        assert float((derivative - wanted).norm() / wanted.norm()) < 1e-3


def noisy(model: LanguageModel, rows: Rows, scales: tuple[float, ...], **options: Any) -> Profile:
    return profile(model, rows["forget"], LAYER, "own", direction(), scales, **options)


def test_a_profile_is_what_a_hook_on_the_block_gives(tiny: LanguageModel, examples: Rows) -> None:
    """One row by hand: noise half as long as its mean state, ratios token by token, then their mean."""
    row = examples["forget"][0]
    found = profile(tiny, [row], LAYER, "all", direction(), [0.5])
    ids = torch.tensor([tiny.encoder.example(row).ids])
    seen: list[Tensor] = []
    tiny.blocks()[2][1].register_forward_hook(lambda _, __, output: seen.append(output[0]))
    with torch.no_grad():
        states = tiny.decoder(input_ids=ids, output_hidden_states=True).hidden_states[LAYER + 1][0]
        noise = 0.5 * states.mean(0).norm() * direction()
        tiny.blocks()[LAYER][1].register_forward_hook(lambda _, __, output: output + noise)
        tiny.decoder(input_ids=ids)
    clean, moved = seen
    wanted = ((moved - clean).square().sum(-1) / clean.square().sum(-1)).mean()
    assert found.through.shape == (1, 1, 1)
    assert found.local.shape == (1, 1, 2)
    assert found.through[0, 0, 0] == pytest.approx(float(wanted), rel=1e-4)
    assert found.local[0, 0, LAYER] == pytest.approx(found.through[0, 0, 0], rel=1e-6)
    assert found.mean_norm == pytest.approx(float(states.mean(0).norm()), rel=1e-5)
    assert found.token_norm == pytest.approx(float(states.norm(dim=-1).mean()), rel=1e-5)


def test_little_noise_acts_by_its_square_and_rows_keep_their_order(tiny: LanguageModel, examples: Rows) -> None:
    tiny.network.double()
    found = noisy(tiny, examples, (1e-4, 2e-4))
    np.testing.assert_allclose(found.through[:, 1], 4 * found.through[:, 0], rtol=1e-2)
    np.testing.assert_allclose(found.local[:, 1], 4 * found.local[:, 0], rtol=1e-2)
    turned = noisy(tiny, {"forget": examples["forget"][::-1]}, (1e-4, 2e-4))
    np.testing.assert_allclose(turned.through, found.through[::-1], rtol=1e-6)


def test_the_mean_vector_gives_one_profile_and_a_length_for_each_direction(tiny: LanguageModel, examples: Rows) -> None:
    found = noisy(tiny, examples, (0.5,), directions={"": direction(), "other": -direction()})
    assert found.through.shape == (1, 1, 1)
    np.testing.assert_allclose(found.coefficients["other"], -found.coefficients[""], rtol=1e-5)


@pytest.mark.parametrize("mode", ["sequence", "mean_vector"])
def test_a_finding_tells_of_both_models(tiny_folder: Path, examples: Rows, mode: str) -> None:
    diagnostic = NoiseSensitivity(NoiseSensitivity.Config(mode=mode, scales=(0.5,)))
    found = diagnostic.measure(context(tiny_folder, examples, 5 * direction(), max_rows=4))
    assert [one.name for one in found.charts[0].series] == ["original, 0.5", "unlearned, 0.5"]
    assert all(value > 0 for chart in found.charts[:2] for one in chart.series for value in one.y)
    assert len(found.charts) == len(found.tables) == (3 if mode == "mean_vector" else 2)
    assert "original model" in found.sentence
    assert "unlearned model" in found.sentence


def test_there_must_be_a_block_above(tiny_folder: Path, examples: Rows) -> None:
    with pytest.raises(UserError, match=r"noise_sensitivity\.layer: there is no block above layer 2"):
        NoiseSensitivity(NoiseSensitivity.Config(layer=-1)).measure(context(tiny_folder, examples))
