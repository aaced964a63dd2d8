"""Retain losses on hidden states: what they see of a change, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from expunge.data.example import Example
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, row_set
from expunge.models.sites import Site
from expunge.retain.hidden_cosine import HiddenCosine
from expunge.retain.hidden_mse import HiddenMSE


def prepared(
    kind: type[HiddenMSE] | type[HiddenCosine], model: LanguageModel, rows: tuple[Example, ...], **options: Any
) -> tuple[HiddenMSE | HiddenCosine, RowSet]:
    loss = kind(kind.Config(**options))
    setup = Setup(model, rows, [model.encoder.example(row) for row in rows], "0/retain", 1)
    loss.prepare(setup)
    return loss, row_set(model, setup.sequences, loss.needs)


@pytest.fixture
def rows(examples: dict[str, tuple[Example, ...]]) -> tuple[Example, ...]:
    return examples["retain"][:3]


@pytest.mark.parametrize("kind", [HiddenMSE, HiddenCosine])
def test_nothing_is_lost_at_the_start(
    tiny: LanguageModel, rows: tuple[Example, ...], kind: type[HiddenMSE] | type[HiddenCosine]
) -> None:
    loss, kept = prepared(kind, tiny, rows)
    assert loss.loss(Forward.of(tiny, kept, [0, 1, 2])).abs() < 1e-6
    assert loss.needs.reference_hidden == (2,), "the highest block with a trained weight"


def test_states_three_times_as_long(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """h = 3 h0: `||h - h0||^2 = 4 ||h0||^2`, 4 in relative units and nothing for the cosine."""
    losses = [prepared(kind, tiny, rows, layer=1) for kind in (HiddenMSE, HiddenCosine)]

    class Longer(Forward):
        def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[torch.Tensor]:
            return [3 * output for output in super().hidden(layers, site)]

    mse, cosine = (float(loss.loss(Longer.of(tiny, kept, [0, 1, 2]))) for loss, kept in losses)
    assert mse == pytest.approx(4, rel=1e-4)
    assert cosine == pytest.approx(0, abs=1e-6)


def test_width_instead_of_norms_is_torch_s_mse(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """One row, so that the mean over rows of token means is the mean over tokens."""
    loss, kept = prepared(HiddenMSE, tiny, rows[:1], layer=1, normalise=False)
    ids = torch.tensor([kept.sequences[0].ids])

    def states() -> torch.Tensor:
        return tiny.decoder(input_ids=ids, output_hidden_states=True).hidden_states[2]

    with torch.no_grad():
        before = states()
        tiny.blocks()[0][1].mlp.down_proj.weight.mul_(1.5)  # type: ignore[union-attr, operator]
        wanted = torch.nn.functional.mse_loss(states(), before)
        torch.testing.assert_close(loss.loss(Forward.of(tiny, kept, [0])), wanted, rtol=1e-4, atol=1e-8)


def test_opposite_states_cost_two(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    loss, kept = prepared(HiddenCosine, tiny, rows, layer=1)

    class Opposite(Forward):
        def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[torch.Tensor]:
            return [-output for output in super().hidden(layers, site)]

    assert float(loss.loss(Opposite.of(tiny, kept, [2, 0]))) == pytest.approx(2, abs=1e-5)
