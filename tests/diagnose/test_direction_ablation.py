"""Direction ablation: what steering by hand hid comes back, and only by the right direction."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from steering import LAYER, Rows, context

from expunge.core.errors import UserError
from expunge.core.records import Score
from expunge.diagnose.direction_ablation import RANDOM, SAVED, SHIFT, DirectionAblation
from expunge.evaluate.rowwise import recovered


def test_the_share_by_hand() -> None:
    """From 1 down to 0 and back to 0.5 in every row: half of it, whatever the rows drawn; absent rows do not count."""
    found = recovered([1, 1, 1, "no keyword"], [0, 0, 0, 0], [0.5, 0.5, 0.5, 1], 0)
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 3)
    mixed = recovered([1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], 0)
    assert mixed.value == 0.5
    assert mixed.low is not None
    assert mixed.low < 0.5


def test_a_share_of_nothing_is_no_number() -> None:
    assert recovered([0.5, 1], [0.5, 1], [1, 1], 0).reason == "nothing was clearly lost"
    assert recovered([1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], 0).value is None
    assert recovered(["rows without keywords"], [0], [0], 0).reason == "rows without keywords"


def test_what_a_push_hid_comes_back_without_its_direction(tiny_folder: Path, examples: Rows) -> None:
    """The push is far longer than any state; a random direction leaves it in place."""
    push = 200 * torch.nn.functional.normalize(torch.randn(96, generator=torch.Generator().manual_seed(1)), dim=0)
    found = DirectionAblation(DirectionAblation.Config(max_new_tokens=24)).measure(context(tiny_folder, examples, push))
    cells = {(row[0], row[1], row[2]): row[3:] for row in found.tables[0].rows}

    def score(split: str, metric: str, condition: str, place: int = 0) -> float:
        cell = cells[split, metric, condition][place]
        assert isinstance(cell, Score)
        assert cell.value is not None
        return cell.value

    for split in ("forget", "retain"):
        assert score(split, "keyword_recall", "original") > 0.8
        assert score(split, "keyword_recall", "unlearned") < 0.2
        for condition in (SAVED, SHIFT):
            assert score(split, "keyword_recall", condition, 1) > 0.6
            assert score(split, "probability", condition, 1) > 0.6
        assert abs(score(split, "probability", RANDOM, 1)) < 0.2
    assert f"block {LAYER}" in found.sentence
    assert {chart.title for chart in found.charts} == {"Keyword recall", "Probability"}


def test_a_model_that_did_not_change_has_nothing_to_recover(tiny_folder: Path, examples: Rows) -> None:
    given = context(tiny_folder, examples, torch.zeros(96), tensors={}, max_rows=3)
    found = DirectionAblation(DirectionAblation.Config(max_new_tokens=4)).measure(given)
    assert found.sentence == "There is nothing to recover on the forget rows: nothing was clearly lost."
    assert any("saved no direction" in note for note in found.notes)
    assert any("No state of the forget rows moved" in note for note in found.notes)
    assert {row[2] for row in found.tables[0].rows} == {"original", "unlearned", RANDOM}


@pytest.mark.parametrize("layer", [7, -4])
def test_a_layer_that_is_not_there_is_refused(tiny_folder: Path, examples: Rows, layer: int) -> None:
    with pytest.raises(UserError, match=rf"direction_ablation\.layer: no layer {layer}"):
        DirectionAblation(DirectionAblation.Config(layer=layer)).measure(context(tiny_folder, examples, torch.ones(96)))
