"""RMU and Adaptive RMU: the direction, the loss, and which weights they reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.forget.misdirection import Misdirection
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, row_set

Rows = dict[str, tuple[Example, ...]]


@pytest.fixture
def prepared(tiny: LanguageModel, examples: Rows) -> Callable[..., Misdirection]:
    """The loss on four forget rows, the last two of another topic; blocks 0 and 1 of three can move."""
    names = [f"{prefix}.mlp.down_proj.weight" for prefix, _ in tiny.blocks()[:2]]
    tiny.freeze_but(names)
    rows = [replace(row, topic="bio" if place < 2 else "cyber") for place, row in enumerate(examples["forget"][:4])]

    def prepare(seed: int = 0, **options: Any) -> Misdirection:
        loss = Misdirection(Misdirection.Config(**options))
        loss.prepare(Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], f"{seed}/forget", 1))
        return loss

    return prepare


def view_of(model: LanguageModel, examples: Rows, indices: list[int]) -> Forward:
    sequences = [model.encoder.example(row) for row in examples["forget"][:4]]
    return Forward.of(model, row_set(model, sequences), indices)


def norms_by_hand(model: LanguageModel, examples: Rows, layer: int, skip: int) -> list[float]:
    """Mean norm of each row's tokens after its opening, one row at a time, from transformers' own hidden states."""
    found = []
    for row in examples["forget"][:4]:
        ids = torch.tensor([model.encoder.example(row).ids])
        with torch.no_grad():
            states = model.decoder(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0, skip:]
        found.append(float(states.norm(dim=-1).mean()))
    return found


def test_a_uniform_direction_has_no_negative_entry_and_follows_the_seed(prepared: Callable[..., Misdirection]) -> None:
    first, same, other = (prepared(seed).directions["bio"] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.norm() == pytest.approx(1)
    assert first.min() >= 0
    gaussian = prepared(direction="gaussian").directions["bio"]
    assert gaussian.min() < 0
    assert gaussian.norm() == pytest.approx(1)


def test_uniform_directions_lean_to_all_ones_and_to_each_other() -> None:
    """E cos(u, 1) = sqrt(3) / 2 and E cos(u, u') = 3/4: 256 entries, sd 0.010 and 0.019 (arXiv:2408.06223 checked)."""
    from expunge.forget.misdirection import _unit

    draws = [_unit(torch.rand, 256, f"{seed}/direction/") for seed in range(40)]
    ones = torch.ones(256) / 16
    assert sum(float(draw @ ones) for draw in draws) / 40 == pytest.approx(math.sqrt(3) / 2, abs=0.01)
    assert sum(float(one @ two) for one, two in zip(draws[::2], draws[1::2], strict=True)) / 20 == pytest.approx(
        0.75, abs=0.02
    )


def test_topics_have_their_own_directions_and_can_be_made_orthogonal(prepared: Callable[..., Misdirection]) -> None:
    plain, orthogonal = prepared(), prepared(orthogonal_topics=True)
    assert set(plain.tensors()) == {"direction.bio", "direction.cyber", "coefficient"}
    assert plain.directions["bio"] @ plain.directions["cyber"] > 0.5
    assert float(orthogonal.directions["bio"] @ orthogonal.directions["cyber"]) == pytest.approx(0, abs=1e-6)


def test_the_loss_is_the_squared_distance_by_hand(
    tiny: LanguageModel, examples: Rows, prepared: Callable[..., Misdirection]
) -> None:
    """`||h - c u||^2 = (||h|| - c)^2 + 2 c ||h|| (1 - cos(h, u))`, row by row, over the width."""
    loss = prepared(coefficient=3.0, tokens="all", normalise=False, layer=1)
    found = loss.loss(view_of(tiny, examples, [3, 0]))
    wanted = []
    for index, topic in ((3, "cyber"), (0, "bio")):
        ids = torch.tensor([tiny.encoder.example(examples["forget"][index]).ids])
        states = tiny.decoder(input_ids=ids, output_hidden_states=True).hidden_states[2][0].double()
        norms, along = states.norm(dim=-1), states @ loss.directions[topic].double()
        wanted.append((((norms - 3) ** 2 + 2 * 3 * (norms - along)) / states.shape[1]).mean())
    torch.testing.assert_close(found.double(), torch.stack(wanted).mean(), rtol=1e-5, atol=1e-6)


def test_coefficients_are_scaled_norms_of_the_original(
    tiny: LanguageModel, examples: Rows, prepared: Callable[..., Misdirection]
) -> None:
    """corpus: of the topic's rows; per_sample: row by row; per_batch: their mean; first_batch: of its first rows."""
    from expunge.losses.activations import shared_opening

    opening = shared_opening([tiny.encoder.example(row) for row in examples["forget"][:4]])
    assert opening > 0
    norms = norms_by_hand(tiny, examples, 1, opening)
    corpus = prepared(scale=2.0)
    by_topic = [2 * (norms[0] + norms[1]) / 2, 2 * (norms[2] + norms[3]) / 2]
    assert corpus.tensors()["coefficient"].tolist() == pytest.approx(by_topic, rel=1e-4)
    assert prepared(scale=4.0).tensors()["coefficient"].tolist() == pytest.approx([2 * c for c in by_topic], rel=1e-4)
    first = prepared(scale=2.0, mode="first_batch", first_rows=1).tensors()["coefficient"].tolist()
    assert first == pytest.approx([2 * norms[0], 2 * norms[2]], rel=1e-4)
    for mode, wanted in (("per_sample", [norms[2], norms[0]]), ("per_batch", [(norms[2] + norms[0]) / 2] * 2)):
        found = prepared(scale=1.0, mode=mode)._coefficients([2, 0])
        assert found.tolist() == pytest.approx(wanted, rel=1e-4)


def test_a_length_measured_at_one_depth_is_the_same_for_all_layers(
    tiny: LanguageModel, examples: Rows, prepared: Callable[..., Misdirection]
) -> None:
    lengths = [prepared(norm_depth=0.34, layer=layer).tensors()["coefficient"] for layer in (0, 1, 2)]
    assert torch.equal(lengths[0], lengths[1])
    assert torch.equal(lengths[1], lengths[2])
    assert torch.equal(lengths[1], prepared(layer=1).tensors()["coefficient"]), "0.34 of 3 blocks is block 1"


def test_adaptive_with_the_norm_taken_out_is_fixed(
    tiny: LanguageModel, examples: Rows, prepared: Callable[..., Misdirection]
) -> None:
    """`c = beta N` by hand gives the same gradient as the adaptive coefficient, on rows of one topic."""
    adaptive = prepared(scale=5.0)
    fixed = prepared(coefficient=float(adaptive.tensors()["coefficient"][0]))

    def gradient(loss: Misdirection) -> Tensor:
        return torch.autograd.grad(loss.loss(view_of(tiny, examples, [0, 1])), tiny.trainable()[0])[0]

    torch.testing.assert_close(gradient(adaptive), gradient(fixed), rtol=1e-6, atol=1e-8)


def test_a_target_within_the_norm_is_warned_of_with_both_numbers(prepared: Callable[..., Misdirection]) -> None:
    warned = prepared(coefficient=0.01).warnings
    assert len(warned) == 2
    assert "target length 0.01 of topic 'bio' is not above the mean norm" in warned[0]
    assert not prepared(scale=2.0).warnings


@pytest.mark.parametrize(("layer", "message"), [(9, r"no layer 9; this model has layers 0 to 2"), (-4, "no layer -4")])
def test_layers_that_cannot_be_are_refused(prepared: Callable[..., Misdirection], layer: int, message: str) -> None:
    with pytest.raises(UserError, match=rf"forget\.layer: {message}"):
        prepared(layer=layer)


def test_a_layer_below_every_trained_weight_is_refused(tiny: LanguageModel, examples: Rows) -> None:
    tiny.freeze_but([f"{tiny.blocks()[2][0]}.mlp.down_proj.weight"])
    rows = examples["forget"][:2]
    setup = Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/forget", 1)
    with pytest.raises(UserError, match=r"forget\.layer: no weight up to layer 1 is trained; the lowest trained is 2"):
        Misdirection(Misdirection.Config(layer=1)).prepare(setup)


def test_padded_averages_are_those_of_a_left_padded_batch(
    prepared: Callable[..., Misdirection], tiny: LanguageModel, examples: Rows
) -> None:
    """As the official adaptive code measures: transformers' own hidden states, the mean over every place."""
    found = prepared(mode="first_batch", average="padded", first_rows=2, scale=3.0, layer=1).tensors()["coefficient"]
    tokenizer = tiny.tokenizer
    for place, rows in enumerate((examples["forget"][:2], examples["forget"][2:4])):
        encoded = [{"input_ids": list(tiny.encoder.example(row).ids)} for row in rows]
        batch = tokenizer.pad(encoded, padding_side="left", return_tensors="pt")
        assert place or not batch["attention_mask"].all(), "rows of one length would need no padding"
        with torch.no_grad():
            states = tiny.network(**batch, output_hidden_states=True).hidden_states[2]
        assert float(found[place]) == pytest.approx(3 * float(states.norm(dim=-1).mean()), rel=1e-5)
    with pytest.raises(UserError, match=r'forget\.average: "padded" is the mean over a first batch'):
        prepared(average="padded")
