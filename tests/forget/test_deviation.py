"""Turning states away, worked by hand, and the start that every form shares: no slope where nothing has moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.data.batch import Batch
from expunge.data.example import Example
from expunge.forget.deviation import Deviation
from expunge.losses.base import Setup
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.forward import Forward, row_set
from expunge.models.sites import Site

FORMS = ("npo", "linear", "hinge")


@dataclass
class States:
    """A view of chosen hidden states (B, T, D), all of them real tokens, the last of each row its label."""

    now: Tensor
    original: Tensor
    epoch: int = 0

    @property
    def batch(self) -> Batch:
        rows, length = self.now.shape[:2]
        mask = torch.ones(rows, length, dtype=torch.long)
        last = torch.full((rows,), length - 1)
        return Batch(mask, mask, torch.arange(rows), last, last, tuple(range(rows)))

    def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[Tensor]:
        return [self.now]

    def reference_hidden(
        self, layers: Sequence[int], site: Site = "hidden", device: torch.device | None = None
    ) -> list[Tensor]:
        return [self.original]


def setup_of(model: LanguageModel, examples: dict[str, tuple[Example, ...]], seed: str = "0/forget") -> Setup:
    rows = examples["forget"]
    return Setup(model, rows, [model.encoder.example(row) for row in rows], seed, 1)


@pytest.fixture
def setup(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> Setup:
    return setup_of(tiny, examples)


def loss_of(setup: Setup, **options: Any) -> Deviation:
    loss = Deviation(Deviation.Config.model_validate({"tokens": "all", **options}))
    loss.prepare(setup)
    return loss


def values(similarity: Any, **options: Any) -> Tensor:
    cosines = torch.as_tensor(similarity, dtype=torch.float64)
    return Deviation(Deviation.Config.model_validate(options)).values(cosines)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"form": "npo", "beta": 2.0}, [math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(-4))]),
        ({"form": "npo", "beta": 0.5}, [4 * math.log(2), 4 * math.log1p(math.exp(-0.5)), 4 * math.log1p(math.exp(-1))]),
        ({"form": "linear"}, [0, -1, -2]),
        ({"form": "hinge"}, [1, 0, 0]),
        ({"form": "hinge", "target_cosine": -0.5}, [1.5, 0.5, 0]),
    ],
)
def test_same_orthogonal_and_opposite(options: dict[str, Any], expected: list[float]) -> None:
    """Cosines 1, 0, -1 are deviations 0, 1, 2; the first form is 2/beta log(1 + exp(-beta d))."""
    torch.testing.assert_close(values([1.0, 0.0, -1.0], **options), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("beta", [0.1, 1.0, 20.0])
def test_the_tempered_form_starts_with_the_slope_of_the_linear_one_and_fades(beta: float) -> None:
    """dL/dd is -2 sigmoid(-beta d): -1 at d = 0 for every beta, and ever less steep."""
    similarity = torch.linspace(1, -1, 21, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(values(similarity, beta=beta).sum(), similarity)
    assert slope[0].item() == pytest.approx(1)
    assert (slope.diff() < 0).all()
    assert (slope > 0).all()
    assert slope[-1].item() == pytest.approx(2 / (1 + math.exp(2 * beta)))


def test_a_small_beta_is_the_linear_form() -> None:
    similarity = torch.linspace(1, -1, 5, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(values(similarity, beta=1e-6).sum(), similarity)
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=0, atol=1e-5)


def test_mean_over_the_tokens_of_a_row_without_the_first(setup: Setup) -> None:
    """Row one: first token opposite, then cosines 1 and 0. Row two: 0 and -1. So d is 0, 1, 1, 2: mean 1.

    With the first tokens, both opposite, it is (2 + 0 + 1) / 3 and (2 + 1 + 2) / 3: mean 4/3.
    """
    east, north = [1.0, 0.0], [0.0, 1.0]
    original = torch.tensor([[east, east, east], [east, east, east]], dtype=torch.float64)
    now = torch.tensor([[[-9.0, 0.0], [5.0, 0.0], north], [[-9.0, 0.0], north, [-0.1, 0.0]]], dtype=torch.float64)
    loss = loss_of(setup, form="linear")
    assert loss.loss(States(now, original)).item() == pytest.approx(-1)
    assert loss.logs == {"forget_cosine": pytest.approx(0)}
    everything = loss_of(setup, form="linear", skip_first=False)
    assert everything.loss(States(now, original)).item() == pytest.approx(-4 / 3)
    answer = loss_of(setup, form="linear", tokens="answer")
    assert answer.loss(States(now, original)).item() == pytest.approx(-1.5)


def test_a_matrix_that_writes_the_opposite_turns_its_ffn_s_states_by_half_a_turn(setup: Setup) -> None:
    """Of two trained blocks one gives -h0 and the other h0: d is 2 and 0, mean 1; of the turned one alone it is 2."""
    model = setup.model
    model.freeze_but([f"{prefix}.mlp.down_proj.weight" for prefix, _ in model.blocks()[1:]])
    both = loss_of(setup, form="linear", site="ffn", layer="trained")
    assert both.needs.reference_hidden == (1, 2)
    highest = loss_of(setup, form="linear", site="ffn")
    rows = row_set(model, setup.sequences, both.needs)
    model.network.train()
    with torch.no_grad():
        model.blocks()[2][1].mlp.down_proj.weight.neg_()  # type: ignore[union-attr, operator]
    view = Forward.of(model, rows, range(4))
    assert both.loss(view).item() == pytest.approx(-1, abs=1e-5)
    assert both.logs["forget_cosine"] == pytest.approx(0, abs=1e-5)
    assert highest.loss(view).item() == pytest.approx(-2, abs=1e-5)


def test_no_trained_block_to_look_at(setup: Setup) -> None:
    setup.model.freeze_but(["model.norm.weight"])
    with pytest.raises(UserError, match=r"forget\.layer: no block holds a trained weight"):
        loss_of(setup, layer="trained")


@pytest.mark.parametrize("form", FORMS)
def test_the_length_of_a_state_does_not_count(setup: Setup, form: str) -> None:
    generator = torch.Generator().manual_seed(0)
    now, original = (torch.randn(2, 5, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    loss = loss_of(setup, form=form)
    torch.testing.assert_close(loss.loss(States(100 * now, original)), loss.loss(States(now, 0.1 * original)))


@pytest.mark.parametrize("form", FORMS)
def test_there_is_no_slope_at_the_original_weights_and_one_after_a_kick(setup: Setup, form: str) -> None:
    """States h = x W^T, differentiated by W, in float64: at W itself, and 1e-3 of its norm away."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(7, 11, dtype=torch.float64, generator=generator)
    inputs = torch.randn(3, 5, 11, dtype=torch.float64, generator=generator)
    kick = torch.randn(7, 11, dtype=torch.float64, generator=generator)
    loss = loss_of(setup, form=form)
    norms = []
    for moved in (matrix, matrix + 1e-3 * matrix.norm() / kick.norm() * kick):
        weight = moved.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss.loss(States(inputs @ weight.T, inputs @ matrix.T)), weight)
        norms.append(gradient.norm().item())
    assert norms[0] < 1e-12
    assert norms[1] > 1e-5


def test_a_kick_is_a_share_of_each_matrix_and_its_seed_decides_it(
    setup: Setup, examples: dict[str, tuple[Example, ...]]
) -> None:
    model = setup.model
    model.freeze_but([f"{prefix}.mlp.down_proj.weight" for prefix, _ in model.blocks()[:2]])
    before = {name: weight.detach().clone() for name, weight in model.network.named_parameters()}

    def kicked(seed: str, **options: Any) -> dict[str, Tensor]:
        loss = loss_of(setup_of(model, examples, seed), **options)
        loss.start(model, lambda weight, change: change)
        moved = {}
        for name, weight in model.network.named_parameters():
            moved[name] = weight.detach() - before[name]
            weight.data.copy_(before[name])
        return moved

    moved = kicked("0/forget")
    for name, change in moved.items():
        wanted = 1e-3 * before[name].norm().item() if "down_proj" in name and "layers.2" not in name else 0
        assert change.norm().item() == pytest.approx(wanted, rel=1e-3), name
    again, other, none = kicked("0/forget"), kicked("1/forget"), kicked("0/forget", kick=0)
    assert all(torch.equal(again[name], moved[name]) for name in moved)
    assert sum(not torch.equal(other[name], moved[name]) for name in moved) == 2
    assert not any(change.any() for change in none.values())


def test_no_kick_where_nothing_is_allowed(setup: Setup) -> None:
    before = setup.model.blocks()[0][1].mlp.down_proj.weight.detach().clone()
    loss_of(setup).start(setup.model, lambda weight, change: torch.zeros_like(change))
    assert torch.equal(setup.model.blocks()[0][1].mlp.down_proj.weight, before)


def test_an_adapter_is_refused(setup: Setup) -> None:
    add_lora(setup.model, [f"{setup.model.blocks()[0][0]}.mlp.down_proj.weight"], LoraConfig(r=2), 0)
    with pytest.raises(UserError, match=r"model\.adapter"):
        loss_of(setup)
