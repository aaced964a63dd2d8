"""Layers by their share of the depth."""

from __future__ import annotations

import pytest

from expunge.core.errors import UserError
from expunge.data.example import Splits
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
    "options", [{"depth": (0.5, 0.2)}, {"depth": (0.0, 1.5)}, {"depth": (0.0, 1.0), "layers": (1,)}]
)
def test_a_depth_that_cannot_be_is_refused(tiny: LanguageModel, options: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(UserError, match=r"localize\.depth"):
        Layers(Layers.Config(**options)).select(tiny, Splits((), ()), 0)
