"""FALCON's contrast and its directions, worked by hand and on the tiny model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.errors import UserError
from expunge.core.validation import check
from expunge.data.example import Example
from expunge.forget._offset import Principal, code_offset, paper_offset, principal
from expunge.forget.contrast import Contrast, info_nce, negatives
from expunge.losses.activations import Tokens, cosine
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, row_set
from expunge.models.sites import Site
from expunge.numerics.token import reduce_tokens

Rows = dict[str, tuple[Example, ...]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def power_law(tokens: int, width: int) -> Tensor:
    """States whose principal directions fall off in strength, as real ones do."""
    return (normal(tokens, width) * torch.arange(1, width + 1) ** -0.5) @ torch.linalg.qr(normal(width, width, seed=1))[
        0
    ]


@pytest.fixture
def setup(tiny: LanguageModel, examples: Rows) -> Setup:
    rows = examples["forget"][:4]
    return Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/forget", 2)


@pytest.mark.parametrize(
    ("towards", "away", "expected"),
    [
        (0.0, [1.0], math.log(1 + math.exp(1 / 0.7))),  # 1.6434: a state that has not moved, p orthogonal to it
        (1.0, [-1.0], math.log(1 + math.exp(-2 / 0.7))),  # 0.0558, the least
        (-1.0, [1.0], math.log(1 + math.exp(2 / 0.7))),  # 2.9130, the most
        (0.0, [0.7, 0.0], math.log(2 + math.e)),
    ],
)
def test_value_of_one_token(towards: float, away: list[float], expected: float) -> None:
    """-log of e^(p/tau) over itself and all negatives at tau 0.7; in the last, e^0 / (e^0 + e^1 + e^0)."""
    cosines = torch.tensor([towards], dtype=torch.float64), torch.tensor(away, dtype=torch.float64)[:, None]
    assert info_nce(*cosines, 0.7).item() == pytest.approx(expected, abs=1e-12)


def test_negatives_are_the_token_itself_and_others_of_its_row() -> None:
    """Rows of 4, 2 and 1 tokens, two negatives: half a row further round; the single token only has itself."""
    tokens = Tokens(torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.zeros(7, dtype=torch.long), 3)
    assert [places.tolist() for places in negatives(tokens, 2)] == [[0, 1, 2, 3, 4, 5, 6], [2, 3, 0, 1, 5, 4, 6]]


def test_only_directions_count() -> None:
    """The gradient has no part along a state, and neither the length of a state nor that of p changes the value."""
    states, original, direction = normal(6, 9).requires_grad_(), normal(6, 9, seed=1), normal(9, seed=2)

    def loss(states: Tensor, direction: Tensor) -> Tensor:
        return info_nce(cosine(states, direction), cosine(states, original)[None], 0.7)

    value = loss(states, direction)
    (gradient,) = torch.autograd.grad(value.sum(), states)
    assert gradient.norm(dim=-1).min() > 1e-2
    assert (gradient * states).sum(dim=-1).abs().max() < 1e-12
    torch.testing.assert_close(loss(3 * states, 20 * direction), value, rtol=1e-12, atol=0)


def test_descent_turns_states_to_the_direction_and_past_the_original() -> None:
    original, direction = normal(8, 32), normal(32, seed=1)
    states = original.clone().requires_grad_()
    optimizer = torch.optim.Adam([states], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        info_nce(cosine(states, direction), cosine(states, original)[None], 0.7).mean().backward()
        optimizer.step()
    assert cosine(states, direction).min() > cosine(original, direction).max()
    assert cosine(states, original).max() < 0


def test_principal_directions_are_the_right_singular_vectors() -> None:
    """Also of more states than are widened at once, and of fewer than dimensions: the rank is then their number."""
    for tokens, width in ((5000, 6), (5, 12)):
        states = power_law(tokens, width)
        found = principal(states.float())
        _, values, vectors = torch.linalg.svd(states.float().double(), full_matrices=False)
        assert len(found.energies) == min(tokens, width)
        torch.testing.assert_close(found.energies, values**2, rtol=1e-8, atol=0)
        torch.testing.assert_close((found.directions * vectors).sum(1).abs(), torch.ones(len(values)).double())


@pytest.mark.parametrize(("share", "count"), [(0.5, 1), (0.8, 1), (0.81, 2), (0.96, 3), (1.0, 3)])
def test_the_strongest_that_hold_a_share_of_the_energy(share: float, count: int) -> None:
    """Energies 16 3 1 of 20: shares 0.80, 0.95, 1."""
    assert Principal(torch.tensor([16.0, 3.0, 1.0]), torch.eye(3)).num_explaining(share) == count


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(0.0, [0.5] * 4), (1.0, [0, 3**-0.5, 3**-0.5, 3**-0.5]), (2.0, [-0.5, 0.5, 0.5, 0.5])],
)
def test_papers_direction_by_hand(weight: float, expected: list[float]) -> None:
    """States along the first axis, r = (1, 1, 1, 1): r less w times its first part, at length 1."""
    found = principal(torch.tensor([[2.0, 0, 0, 0], [-5.0, 0, 0, 0]]))
    assert paper_offset(torch.ones(4), found, weight).tolist() == pytest.approx(expected, abs=1e-7)


def test_codes_direction_is_that_of_its_loop_over_outer_products() -> None:
    found, noise = principal(power_law(60, 128)), torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    matrix = torch.eye(128)
    for energy, vector in zip(found.energies, found.directions.float(), strict=True):
        matrix -= -1000 * torch.sigmoid((energy / found.energies[0]).sqrt().float()) * torch.outer(vector, vector)
    matrix = (matrix + 0.01 * noise).tanh()
    wanted = torch.ones(128) / 128**0.5
    for _ in range(6):
        wanted = (wanted @ matrix).tanh()
        wanted = wanted / (wanted.norm() + 1e-6)
    direction = code_offset(found, noise)
    assert direction.norm().item() == pytest.approx(1, abs=1e-6)
    assert torch.dot(direction, wanted / wanted.norm()) > 0.9999
    assert torch.dot(direction, code_offset(found, -noise)) > 0.999


def test_paper_leaves_the_subspace_that_its_code_goes_into() -> None:
    """60 directions of 256, 23% by chance."""
    found = principal(power_law(60, 256))
    assert found.energy_of(paper_offset(torch.randn(256), found, 1.0)) < 1e-10
    assert found.energy_of(code_offset(found, torch.randn(256, 256))) > 0.5


def test_before_the_first_step_the_loss_is_that_of_states_that_have_not_moved(setup: Setup) -> None:
    filler = Contrast(Contrast.Config(layer=1))
    filler.prepare(setup)
    view = Forward.of(setup.model, row_set(setup.model, setup.sequences, filler.needs), range(4))
    direction = filler.tensors()["direction"]
    tokens, _, original = filler.site.states(view)
    wanted = softplus((1 - cosine(original, direction)) / 0.7)
    loss = filler.loss(view)
    torch.testing.assert_close(loss, reduce_tokens(wanted, tokens.rows, 4, "seq_mean"), rtol=1e-5, atol=0)
    assert filler.logs["forget_cosine_to_original"] == pytest.approx(1, abs=1e-5)
    assert filler.logs["forget_norm_ratio"] == pytest.approx(1, abs=1e-5)
    assert filler.logs["forget_cosine_to_direction"] == pytest.approx(filler.logs["pov_cosine"], abs=0.05)


def test_direction_is_of_the_run_alone(setup: Setup) -> None:
    """Unit, without gradient, outside the subspace, and drawn from the run's seed whatever the stream is called."""
    found = []
    for seed in ("0/forget", "0/forget/belief/1", "1/forget"):
        filler = Contrast(Contrast.Config(layer=1, explained_variance=1.0))
        filler.prepare(replace(setup, seed=seed))
        found.append(filler.tensors()["direction"])
    first, again, other = found
    assert torch.equal(first, again)
    assert torch.dot(first, other).abs() < 0.9
    assert first.norm().item() == pytest.approx(1, abs=1e-6)
    assert not first.requires_grad
    filler.loss(Forward.of(setup.model, row_set(setup.model, setup.sequences, filler.needs), range(4)))
    assert filler.logs["pov_dimensions"] == 48  # half of 96: all directions together would leave nothing
    assert filler.logs["pov_energy"] < 1e-6
    assert abs(filler.logs["pov_cosine"]) <= filler.logs["pov_abs_cosine"] < 0.2


class Stretched(Forward):
    """States three times as long as the original ones."""

    def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[Tensor]:
        return [3 * output for output in self.reference_hidden(layers, site)]


def test_a_stretched_state_costs_its_relative_change_squared(setup: Setup) -> None:
    """0.5 (3 - 1)^2 = 2 more than without the penalty."""
    losses = []
    for weight in (0.0, 0.5):
        filler = Contrast(Contrast.Config(layer=1, norm_weight=weight))
        filler.prepare(setup)
        rows = row_set(setup.model, setup.sequences, filler.needs)
        losses.append(filler.loss(Stretched.of(setup.model, rows, range(4))).item())
    assert losses[1] - losses[0] == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("pov", ["paper", "code"])
def test_a_direction_for_each_batch_is_made_from_its_own_rows(setup: Setup, pov: Any) -> None:
    """What a batch of two of four rows gets is what a run on these two alone would get."""
    options = {"layer": 1, "pov": pov, "tokens": "all"}
    by_batch = Contrast(Contrast.Config.model_validate({**options, "per": "batch"}))
    by_run = Contrast(Contrast.Config.model_validate(options))
    by_batch.prepare(setup)
    by_run.prepare(replace(setup, rows=setup.rows[:2], sequences=setup.sequences[:2]))
    rows = row_set(setup.model, setup.sequences, by_batch.needs)
    view: Callable[[], Forward] = lambda: Forward.of(setup.model, rows, [0, 1])  # noqa: E731
    torch.testing.assert_close(by_batch.loss(view()), by_run.loss(view()), rtol=1e-4, atol=0)
    assert by_batch.tensors() == {}


def test_every_topic_has_a_direction_of_its_own_rows(setup: Setup) -> None:
    """Rows of two topics in one batch: each is turned to what a run on its topic alone would turn it to."""
    topics = ["b", "a", "b", "a"]
    both = replace(setup, rows=[replace(row, topic=name) for row, name in zip(setup.rows, topics, strict=True)])
    options = {"layer": 1, "tokens": "all"}
    filler = Contrast(Contrast.Config.model_validate(options))
    filler.prepare(both)
    assert list(filler.tensors()) == ["direction.a", "direction.b"]
    rows = row_set(setup.model, setup.sequences, filler.needs)
    alone = []
    for start in (0, 1):
        part = replace(both, rows=both.rows[start::2], sequences=both.sequences[start::2])
        one = Contrast(Contrast.Config.model_validate(options))
        one.prepare(part)
        name = f"direction.{topics[start]}"
        torch.testing.assert_close(one.tensors()[name], filler.tensors()[name], rtol=0, atol=1e-4)
        alone.append(one.loss(Forward.of(setup.model, row_set(setup.model, part.sequences, one.needs), range(2))))
    found = filler.loss(Forward.of(setup.model, rows, range(4)))
    torch.testing.assert_close(found, torch.stack(alone).mean(), rtol=1e-4, atol=0)
    for_all = Contrast(Contrast.Config.model_validate({**options, "per": "run"}))
    for_all.prepare(both)
    assert list(for_all.tensors()) == ["direction"]


def test_a_direction_within_the_subspace_is_warned_of(setup: Setup) -> None:
    """Weight 1 takes all of the principal part out of the random vector, 3 turns it round and doubles it."""
    said = []
    for weight in (1.0, 3.0):
        filler = Contrast(Contrast.Config(layer=1, weight=weight))
        filler.prepare(setup)
        said.append(filler.warnings)
    assert said[0] == []
    assert "in the principal subspace of the forget rows" in said[1][0]


def test_no_rows_are_no_error(setup: Setup) -> None:
    """A round of samples may be empty for every row."""
    filler = Contrast(Contrast.Config(layer=1))
    filler.prepare(replace(setup, rows=[], sequences=[]))
    assert filler.tensors() == {}


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_of_energy_is_a_share(share: float) -> None:
    with pytest.raises(UserError, match=r"forget\.explained_variance"):
        check(Contrast.Config, {"explained_variance": share}, "forget")
