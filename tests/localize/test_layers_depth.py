"""Layers by their share of the depth."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.core.errors import UserError
from expunge.data.splits import Splits
from expunge.localize.layers import Layers
from expunge.models.base import LanguageModel


@pytest.mark.parametrize(
    ("depth", "layers"), [((0.0, 1.0), [0, 1, 2]), ((0.34, 0.67), [1]), ((0.67, 1.0), [2]), ((0.4, 0.45), [1])]
)
def test_depth_is_a_share_of_the_three_layers(
    tiny: LanguageModel, depth: tuple[float, float], layers: list[int]
) -> None:
    selection = Layers(Layers.Config(depth=depth)).select(tiny, Splits((), ()), 0)
    assert selection.evidence["layers"] == layers


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"top": 0.34}, [0, 1]),
        ({"top": 0.99, "window": 2}, [1, 2]),
        ({"top": 0.0}, [0]),
        ({"top": 2, "window": 1}, [2]),
    ],
)
def test_a_window_ends_at_a_share_of_the_depth(
    tiny: LanguageModel, options: dict[str, float], layers: list[int]
) -> None:
    assert Layers(Layers.Config(**options)).select(tiny, Splits((), ()), 0).evidence["layers"] == layers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": (0.5, 0.2)}, r"localize\.depth"),
        ({"depth": (0.0, 1.5)}, r"localize\.depth"),
        ({"depth": (0.0, 1.0), "layers": (1,)}, "layers and depth both select blocks"),
        ({"top": 0.5, "layers": (1,)}, "layers and top both select blocks"),
        ({"top": 1.0}, "a share of the depth below 1.0, or a whole number"),
        ({"top": 3}, "no layer 3"),
    ],
)
def test_blocks_that_cannot_be_are_refused(tiny: LanguageModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Layers(Layers.Config(**options)).select(tiny, Splits((), ()), 0)
