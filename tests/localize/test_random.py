"""Random blocks: a control that the seed and the draw decide alone."""

from __future__ import annotations

import pytest

from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.localize.random import Random
from expunge.models.base import LanguageModel

SPLITS = Splits((Example("a", "Q", "A"),), ())


def chosen(model: LanguageModel, seed: int, **options: object) -> list[int]:
    layers: list[int] = Random(Random.Config(**options)).select(model, SPLITS, seed).evidence["layers"]
    return layers


def test_draws_of_a_seed_go_through_all_windows(tiny: LanguageModel) -> None:
    """Three blocks have two windows of two: (0, 1) and (1, 2)."""
    for seed in range(5):
        found = [chosen(tiny, seed, window=2, draw=draw) for draw in range(4)]
        assert sorted(found[:2]) == [[0, 1], [1, 2]]
        assert found[:2] == found[2:]
        assert chosen(tiny, seed, window=2) == found[0]
    assert len({tuple(chosen(tiny, seed, window=2)) for seed in range(10)}) == 2, "seeds differ"


def test_windows_stay_whole_and_within_the_depth(tiny: LanguageModel) -> None:
    assert {tuple(chosen(tiny, seed, window=1, depth=(0.5, 1.0))) for seed in range(20)} == {(2,)}
    assert chosen(tiny, 0, window=9) == [0, 1, 2]
    assert chosen(tiny, 0, window=3, depth=(0.0, 0.5)) == [0, 1, 2], "the lowest whole window ends above that share"


def test_named_weights_and_refusals(tiny: LanguageModel) -> None:
    names = Random(Random.Config(window=1)).select(tiny, SPLITS, 0).names
    assert len(names) == 1
    assert names[0].endswith("mlp.down_proj.weight")
    with pytest.raises(UserError, match=r"did you mean mlp\.down_proj"):
        chosen(tiny, 0, modules=("mlp.down_pro",))
