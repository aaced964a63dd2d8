"""What every diagnostic is given: one model at a time, the rows of the run, its direction and layer."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from steering import Rows, context, direction

from expunge.core.errors import UserError
from expunge.data.example import fingerprint
from expunge.forget.misdirection import Misdirection
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel


def test_a_model_is_gone_before_the_next_one_comes(tiny_folder: Path, examples: Rows) -> None:
    given = context(tiny_folder, examples, direction())
    seen: list[weakref.ref[Any]] = []

    def look(model: LanguageModel, _: Any) -> int:
        gc.collect()
        assert not any(reference() for reference in seen)
        seen.append(weakref.ref(model.network))
        return 1

    assert sum(given.on(stage, look) for stage in given.stages) == 2
    assert given.machine == ("cpu", "float32", "cache with a shared start")


def test_a_large_split_is_sampled_by_the_seed(tiny_folder: Path, examples: Rows) -> None:
    def ids(seed: int) -> list[str]:
        given = context(tiny_folder, examples, max_rows=3, seed=seed)
        return [row.id for row in given.on("original", lambda _, rows: rows["retain"])]

    assert len(ids(0)) == 3
    assert ids(0) == ids(0) != ids(1)


def test_rows_that_the_run_did_not_see_are_refused(tiny_folder: Path, examples: Rows) -> None:
    shas = {name: fingerprint(examples[name]) for name in ("forget", "retain")}
    context(tiny_folder, examples, expected=shas).on("original", lambda *_: None)
    moved = {**examples, "forget": examples["forget"][1:]}
    with pytest.raises(UserError, match=r"data\.forget: .* does not hold the rows of the run"):
        context(tiny_folder, moved, expected=shas).on("original", lambda *_: None)


def test_without_a_run_the_direction_is_what_rmu_would_draw(tiny: LanguageModel, examples: Rows) -> None:
    rows = examples["forget"][:2]
    loss = Misdirection(Misdirection.Config())
    loss.prepare(Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "5/forget", 1))
    given = context(Path(), examples, seed=5)
    torch.testing.assert_close(given.directions(96)[""], loss.directions[""])
    saved = replace(given, tensors={"direction.bio": 3 * direction(), "coefficient": torch.ones(1)})
    assert list(saved.directions(96)) == ["bio"]
    torch.testing.assert_close(saved.directions(96)["bio"], direction())


@pytest.mark.parametrize(
    ("options", "chosen", "layer"),
    [
        ({}, None, 1),
        ({}, -1, 2),
        ({"steered": 0}, None, 0),
        ({"steered": 0}, 2, 2),
        ({"trained": ("model.layers.0.mlp.down_proj.weight",)}, None, 1),
        ({"trained": ("model.layers.0.mlp.down_proj.weight",), "tensors": {"direction": direction()}}, None, 0),
    ],
)
def test_the_layer_is_the_chosen_one_or_the_run_s_or_a_share_of_the_depth(
    tiny: LanguageModel, examples: Rows, options: dict[str, Any], chosen: int | None, layer: int
) -> None:
    """0.23 of three blocks is block 1; what a run trained counts only if it steered."""
    assert context(Path(), examples, **options).layer(tiny, chosen, "alignment") == layer


def test_a_layer_that_is_not_there_is_refused(tiny: LanguageModel, examples: Rows) -> None:
    with pytest.raises(UserError, match=r"alignment\.layer: no layer 9; this model has layers 0 to 2"):
        context(Path(), examples).layer(tiny, 9, "alignment")
