"""What `mlp.down_proj` means where nothing is called so: what writes in the part that treats each token by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from random_models import random_network

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.feed_forward import feed_forward_outputs
from expunge.models.module_names import parameter_names

EXPERTS = ("mlp.experts.down_proj", "mlp.shared_experts.down_proj")
DEEP = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "head_dim": 8,
}
NETWORKS: dict[str, tuple[dict[str, Any], list[tuple[str, ...]]]] = {
    "Mixtral": ({"num_local_experts": 4}, [("mlp.experts.down_proj",)] * 2),
    "Glm4Moe": (
        {**DEEP, "head_dim": 8},
        [("mlp.down_proj",), ("mlp.experts.down_proj", "mlp.shared_experts.down_proj")],
    ),
    "GPTJ": ({"rotary_dim": 4}, [("mlp.fc_out",)] * 2),
    "Falcon": ({"ffn_hidden_size": 64}, [("mlp.dense_4h_to_h",)] * 2),
    "Llama": ({}, [("mlp.down_proj",)] * 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_matrices_that_write_are_found(name: str, wrap: Callable[[Any], LanguageModel]) -> None:
    """Experts with the shared one; GPT-J and Falcon, whose attention writes beside it; a dense first block."""
    options, expected = NETWORKS[name]
    assert feed_forward_outputs(wrap(random_network(name, **options))) == expected


def test_of_square_matrices_the_last_one_writes(wrap: Callable[[Any], LanguageModel]) -> None:
    network = random_network("Llama")
    for layer in network.model.layers:
        layer.mlp = type(layer.mlp)(type(network.config)(hidden_size=32, intermediate_size=32))
    assert feed_forward_outputs(wrap(network)) == [("mlp.down_proj",)] * 2


def test_a_localizer_names_experts_by_any_of_their_names(wrap: Callable[[Any], LanguageModel]) -> None:
    """The common name, the parameter's own and the whole module's; a name that is none is refused with a near one."""
    model = wrap(random_network("Mixtral", num_local_experts=4))
    down = ("model.layers.1.mlp.experts.down_proj",)
    assert parameter_names(model, [1], ["mlp.down_proj"]) == down
    assert parameter_names(model, [1], ["mlp.experts.down_proj"]) == down
    assert parameter_names(model, [1], ["mlp.experts"]) == ("model.layers.1.mlp.experts.gate_up_proj", *down)
    with pytest.raises(UserError, match=r"no module 'mlp\.experts\.up_proj' .*did you mean mlp\.experts\."):
        parameter_names(model, [1], ["mlp.experts.up_proj"])
