"""Interpolation, pruning and noise: a thin cover tears, and where nothing is beneath it nothing comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attack_ground import Rows, build, carried_out, ground, load, share

from expunge.attacks.base import AttackContext, CurvePoint
from expunge.attacks.engine import attack
from expunge.attacks.interpolation import soon
from expunge.attacks.noise import noisy
from expunge.attacks.pruning import pruned
from expunge.core.errors import UserError
from expunge.models.matrices import plain_weights


@pytest.fixture(scope="module")
def thin(refusing_folder: Path, tiny_folder: Path, examples: Rows) -> AttackContext:
    """The refusing model as near to the original as it can be without an answer, to a hundredth of the way."""
    known = {name: weight.data for name, weight in plain_weights(load(tiny_folder))}
    low, high = 0.0, 1.0
    while high - low > 0.01:
        middle = (low + high) / 2
        model = load(refusing_folder)
        with torch.no_grad():
            for name, weight in plain_weights(model):
                weight.lerp_(known[name], middle)
        context = ground(model, examples, lambda: load(tiny_folder))
        if any(context.unlearned_plain):
            high = middle
        else:
            low, found = middle, context
    return found


def test_halfway_back_from_a_refusal_the_answers_are_there(refusing: AttackContext) -> None:
    found = carried_out(refusing, "interpolation")
    assert share(found["halfway"]) >= 0.75
    assert [point.at for point in found["halfway"].curve] == [0.1, 0.25, 0.5, 0.75]
    assert share(found["how soon"]) >= 0.5


def test_from_a_model_that_never_knew_the_way_back_is_long(never: AttackContext) -> None:
    found = carried_out(never, "interpolation")
    assert share(found["halfway"]) == 0
    assert share(found["how soon"]) <= 0.1


def test_how_soon_by_hand() -> None:
    """Said at once, at 0.25 and not at 0.1, never: 1, 0.75, 0."""
    curve = [CurvePoint(0.0, [1.0, 0.0, 0.0]), CurvePoint(0.1, [0.0, 0.0, 0.0]), CurvePoint(0.25, [1.0, 1.0, 0.0])]
    assert soon(curve) == [1.0, 0.75, 0.0]


def test_an_original_of_another_shape_is_told(refusing: AttackContext, tiny_folder: Path) -> None:
    other = load(tiny_folder)
    other.blocks()[0][1].mlp.down_proj.weight.data = torch.zeros(96, 8)
    with pytest.raises(UserError, match=r"no weight model\.layers\.0\.mlp\.down_proj\.weight of the attacked"):
        carried_out(replace(refusing, load_original=lambda: other), "interpolation")


def test_noise_tears_a_thin_cover(thin: AttackContext) -> None:
    assert not any(thin.unlearned_plain)
    attempt = carried_out(thin, "noise", sizes=[0.1, 0.3], draws=8)[""]
    assert share(attempt) > 0.1
    assert [point.at for point in attempt.curve] == [0.1, 0.3]


def test_pruning_tears_a_thin_cover(thin: AttackContext) -> None:
    assert share(carried_out(thin, "pruning", shares=[0.2, 0.4, 0.5])[""]) > 0.1


@pytest.mark.parametrize("name", ["noise", "pruning"])
def test_nothing_comes_out_of_a_model_that_never_knew(never: AttackContext, name: str) -> None:
    assert share(carried_out(never, name)[""]) == 0


def test_pruned_weights_by_hand() -> None:
    """Half of four weights: 1 and -2 are the smallest; those that equal the largest pruned one go with it."""
    weight = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    assert pruned(weight, 0.5).tolist() == [[0, 0], [3, -4]]
    assert pruned(torch.tensor([[1.0, -1.0, 5.0]]), 1 / 3).tolist() == [[0, 0, 5]]
    assert pruned(weight, 0.1).tolist() == weight.tolist()
    assert weight.tolist() == [[1, -2], [3, -4]]


def test_the_size_of_noise_is_a_share_of_the_deviation() -> None:
    weight = 3 * torch.randn(200, 200, generator=torch.Generator().manual_seed(0)) + 1
    found = noisy(weight, 0.1, torch.Generator().manual_seed(1)) - weight
    assert abs(found.std().item() - 0.3) < 0.01
    assert abs(found.mean().item()) < 0.01


def test_what_harms_any_model_is_tried_on_the_original_too(refusing: AttackContext) -> None:
    """Without 95% of its weights the original says nothing either: that nothing comes back then means nothing."""
    card = attack([build("pruning", shares=[0.95]), build("sampling", samples=1)], refusing)
    harmful, harmless = card.attacks
    assert (card.controls["original"].value or 0) > 0.9
    assert (harmful.variants[0].controls["original"].value or 0) < 0.1
    assert not harmless.variants[0].controls
