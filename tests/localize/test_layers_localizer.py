"""Blocks by index and modules by name, and everything."""

from __future__ import annotations

import pytest

from expunge.core.errors import UserError
from expunge.data.splits import Splits
from expunge.localize.everything import Everything
from expunge.localize.layers import Layers
from expunge.models.base import LanguageModel

NONE = Splits((), ())


def select(model: LanguageModel, layers: tuple[int, ...] = (), modules: tuple[str, ...] = ()) -> tuple[str, ...]:
    return Layers(Layers.Config(layers=layers, modules=modules)).select(model, NONE, 0).names


def test_everything_is_every_parameter_and_all_of_it_moves(tiny: LanguageModel) -> None:
    names = Everything(Everything.Config()).select(tiny, NONE, 0).names
    tiny.freeze_but(names)
    assert list(names) == [name for name, _ in tiny.network.named_parameters()]
    assert len(tiny.trainable()) == len(names)


def test_modules_of_chosen_layers_by_name(tiny: LanguageModel) -> None:
    """The model has blocks 0 1 2; -1 is 2, and naming a block twice takes it once."""
    wanted = ("model.layers.0.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight")
    assert select(tiny, (-1, 0, 2), ("mlp.down_proj",)) == wanted
    assert select(tiny, (0, 2), ("mlp.down_proj",)) == wanted


def test_a_module_name_stands_for_all_within_it_and_only_that(tiny: LanguageModel) -> None:
    """`mlp` is its three matrices; `self_attn.q` is no module, though `self_attn.q_proj` begins with it."""
    assert [name.rpartition("mlp.")[2] for name in select(tiny, (1,), ("mlp",))] == [
        "gate_proj.weight",
        "up_proj.weight",
        "down_proj.weight",
    ]
    with pytest.raises(UserError, match=r"no module 'self_attn\.q' in model\.layers\.1"):
        select(tiny, (1,), ("self_attn.q",))


def test_no_layers_are_all_layers_and_no_modules_are_whole_blocks(tiny: LanguageModel) -> None:
    blocks = {name for name, _ in tiny.network.named_parameters() if ".layers." in name}
    assert set(select(tiny)) == blocks
    assert len(select(tiny, (), ("mlp.up_proj",))) == 3


def test_freezing_the_rest_leaves_only_the_selection(tiny: LanguageModel) -> None:
    names = select(tiny, (1,), ("mlp.down_proj", "self_attn.o_proj"))
    tiny.freeze_but(names)
    moving = {name for name, weight in tiny.network.named_parameters() if weight.requires_grad}
    assert moving == set(names)


@pytest.mark.parametrize("layer", [3, -4])
def test_a_layer_that_does_not_exist(tiny: LanguageModel, layer: int) -> None:
    with pytest.raises(UserError, match=rf"localize\.layers: no layer {layer}; this model has layers 0 to 2"):
        select(tiny, (layer,))


def test_a_misspelt_module_is_offered_the_near_name(tiny: LanguageModel) -> None:
    with pytest.raises(UserError, match=r"no module 'mlp\.down_prj' .*did you mean mlp\.down_proj"):
        select(tiny, (0,), ("mlp.down_prj",))
