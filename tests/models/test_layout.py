"""Decoder, blocks and head are found by watching a pass; what cannot be found is refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from random_models import random_network
from torch import Tensor, nn

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.partial import entering, site_outputs

Wrap = Callable[[Any], LanguageModel]
IDS = torch.tensor([[5, 9, 17, 3, 40], [8, 60, 33, 21, 7]])
SMALL = {"vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.3}


def gptj(**options: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.GPTJConfig(n_embd=32, n_layer=3, n_head=4, n_positions=64, rotary_dim=4, **SMALL, **options)
    return transformers.GPTJForCausalLM(config)


@pytest.mark.parametrize(
    ("name", "options"),
    [("Granite", {"logits_scaling": 8.0}), ("Cohere", {"logit_scale": 0.125}), ("Gemma2", {"head_dim": 8})],
)
def test_a_head_with_a_scale_or_a_cap_gives_the_networks_own_logits(
    wrap: Wrap, name: str, options: dict[str, Any]
) -> None:
    """For hidden states of any shape, with a gradient, and with another matrix in the place of the model's own."""
    model = wrap(random_network(name, **options))
    own = model.base(input_ids=IDS).logits
    hidden = model.decoder(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(model.head(hidden), own)
    torch.testing.assert_close(model.head(hidden[1, 3]), own[1, 3])
    assert (model.head(hidden) - model.output_matrix(hidden)).abs().max() > 0.1, "the scale must matter"
    frozen = copy.deepcopy(model.output_matrix)
    matrix = model.output_matrix
    with torch.no_grad():
        matrix.weight.mul_(3)
    torch.testing.assert_close(model.head(hidden, frozen), own)
    assert model.output_matrix is matrix
    model.head(hidden.detach()).sum().backward()
    assert matrix.weight.grad is not None


def test_a_head_that_reads_more_than_the_final_states_is_refused(wrap: Wrap) -> None:
    """Logits that depend on the tokens themselves cannot be made of hidden states alone."""

    class Peeking(transformers.LlamaForCausalLM):
        def forward(self, input_ids: Tensor | None = None, **options: Any) -> Any:
            output = super().forward(input_ids=input_ids, **options)
            assert input_ids is not None
            output.logits = output.logits + input_ids[..., None]
            return output

    network = random_network("Llama")
    network.__class__ = Peeking
    with pytest.raises(UserError, match="logits of Peeking cannot be recomputed from its final hidden"):
        wrap(network)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_is_compared_in_parts_of_its_logits(wrap: Wrap, dtype: torch.dtype) -> None:
    """Logits as small as an untrained model's, and a part of them that hidden states alone do not give."""

    class Shifted(transformers.LlamaForCausalLM):
        share = 0.0

        def forward(self, input_ids: Tensor | None = None, **options: Any) -> Any:
            output = super().forward(input_ids=input_ids, **options)
            assert input_ids is not None
            size = output.logits.abs().max()
            output.logits = output.logits + self.share * size * (input_ids[..., None] != 0)
            return output

    network = random_network("Llama").to(dtype)
    network.lm_head.weight.data.mul_(1e-4)
    network.__class__ = Shifted
    wrap(network)
    Shifted.share = 0.1
    with pytest.raises(UserError, match="logits of Shifted cannot be recomputed from its final hidden"):
        wrap(network)


def test_parts_are_found_whatever_they_are_called(wrap: Wrap) -> None:
    class Odd(nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.wrapped, self.embed_tokens = model, model.embed_tokens

        def forward(self, **options: Any) -> Any:
            return self.wrapped(**options)

    network = random_network("Llama")
    expected = network(input_ids=IDS).logits
    network.model = Odd(network.model)
    model = wrap(network)
    assert model.blocks()[1][0] == "model.wrapped.layers.1"
    torch.testing.assert_close(model.head(model.decoder(input_ids=IDS).last_hidden_state), expected)


def test_blocks_that_run_twice_are_refused_with_the_lists_there_are(wrap: Wrap) -> None:
    network = random_network("Llama")
    layers = network.model.layers

    def again(_: nn.Module, arguments: tuple[Tensor], options: dict[str, Any]) -> None:
        layers[0](*arguments, **options)

    layers[1].register_forward_pre_hook(again, with_kwargs=True)
    with pytest.raises(UserError, match=r"decoder blocks of LlamaForCausalLM, .*lists of modules in it: model\.layers"):
        wrap(network)


def test_a_model_that_cannot_read_a_text_alone_is_refused(wrap: Wrap) -> None:
    network = random_network("Llama")
    network.model.forward = lambda *_, **__: 1 / 0
    with pytest.raises(UserError, match=r"LlamaForCausalLM cannot read text alone \(ZeroDivisionError"):
        wrap(network)


def projected_opt() -> Any:
    """Blocks of width 32 between projections from and to 16, as OPT-350M has them."""
    torch.manual_seed(0)
    config = transformers.OPTConfig(
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
        do_layer_norm_before=False,
        init_std=0.3,
        vocab_size=128,
        pad_token_id=0,
    )
    return transformers.OPTForCausalLM(config)


@pytest.mark.parametrize("build", [gptj, projected_opt])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_blocks_that_give_tuples_or_are_wider_than_the_final_states_can_be_skipped(
    wrap: Wrap, first: int, build: Callable[[], Any]
) -> None:
    model = wrap(build())
    batch = collate([Encoded(tuple(row), 2) for row in IDS.tolist()], [0, 1])
    expected = model.decoder(input_ids=IDS).last_hidden_state
    (hidden,) = site_outputs(model, batch, [first - 1], "hidden")
    with entering(model, first, hidden):
        found = model.decoder(input_ids=torch.zeros_like(IDS)).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_skipping_a_block_leaves_what_wraps_its_forward(wrap: Wrap) -> None:
    """accelerate keeps its hooks as a `forward` of the module's own; they must be there afterwards."""
    accelerate = pytest.importorskip("accelerate.hooks")
    calls: list[str] = []

    class Counted(accelerate.ModelHook):  # type: ignore[misc, name-defined]
        def pre_forward(self, module: nn.Module, *arguments: Any, **options: Any) -> Any:
            calls.append("called")
            return arguments, options

    network = random_network("Llama")
    for block in network.model.layers:
        accelerate.add_hook_to_module(block, Counted())
    model = wrap(network)
    with entering(model, 2, torch.zeros(2, 5, 32)):
        model.decoder(input_ids=IDS)
    calls.clear()
    model.decoder(input_ids=IDS)
    assert len(calls) == 2
