"""Weight matrices of the blocks: a stack of experts holds one for each, and each is treated by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from random_models import random_network
from torch import nn
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from expunge.attacks._weights import moved_share
from expunge.attacks.noise import noisy
from expunge.attacks.pruning import pruned
from expunge.core.errors import UserError
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.matrices import WeightMatrix, block_matrices, share_of_blocks
from expunge.models.quantize import Quantization, quantize, quantized
from expunge.models.temporary_weights import changed_weights, each_matrix

EXPERTS: dict[str, dict[str, Any]] = {
    "Mixtral": {"num_local_experts": 4},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 64},
    "Dbrx": {
        "d_model": 32,
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
    },
    "Glm4Moe": {
        "n_routed_experts": 4,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "head_dim": 8,
    },
}
STACKS = {
    "Mixtral": {"experts.gate_up_proj": (4, 128, 32), "experts.down_proj": (4, 32, 64)},
    "GptOss": {"experts.gate_up_proj": (4, 128, 32), "experts.down_proj": (4, 32, 64)},
    "Dbrx": {"mlp.w1": (4, 48, 32), "mlp.v1": (4, 48, 32), "mlp.w2": (4, 32, 48)},
    "Glm4Moe": {"experts.gate_up_proj": (4, 32, 32), "experts.down_proj": (4, 32, 16)},
}
"""Architecture -> end of a stack's name -> experts, outputs and inputs of it."""
ROW = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])


@pytest.fixture(params=EXPERTS)
def experts(request: pytest.FixtureRequest, wrap: Callable[[Any], LanguageModel]) -> LanguageModel:
    """A random model of each way to keep experts: outputs first, inputs first, in two axes, beside dense layers."""
    return _experts(request.param, wrap)


def _experts(name: str, wrap: Callable[[Any], LanguageModel]) -> LanguageModel:
    return wrap(random_network(name, **EXPERTS[name]))


def _stacks(model: LanguageModel) -> dict[str, WeightMatrix]:
    return {name: matrix for name, matrix in block_matrices(model).items() if not matrix.is_layer}


def _logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad(), model.evaluating():
        logits: torch.Tensor = model.network(input_ids=ROW, use_cache=False).logits
    return logits


def _turned(matrix: WeightMatrix, weight: torch.Tensor) -> list[torch.Tensor]:
    """The experts as (out, in), taken apart by hand."""
    parts = weight.reshape(4, -1, weight.shape[-1])
    return [part.T if matrix.inputs_first else part for part in parts]


def test_stacks_are_seen_with_their_inputs(experts: LanguageModel) -> None:
    """gpt-oss and the last matrix of DBRX keep inputs first; neither routers nor biases of experts are matrices."""
    name = type(experts.base).__name__.removesuffix("ForCausalLM")
    stacks = _stacks(experts)
    found = {
        ".".join(full.split(".")[-2:]): (matrix.num, matrix.num_outputs, matrix.num_inputs)
        for full, matrix in stacks.items()
    }
    assert found == STACKS[name]
    turned = {full.split(".")[-1] for full, matrix in stacks.items() if matrix.inputs_first}
    assert turned == {"GptOss": {"gate_up_proj", "down_proj"}, "Dbrx": {"w2"}}.get(name, set())
    layers = {full for full, matrix in block_matrices(experts).items() if matrix.is_layer}
    linear = {
        f"{prefix}.{path}.weight"
        for prefix, block in experts.blocks()
        for path, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert layers == linear


def test_experts_that_no_token_reaches_are_seen(wrap: Callable[[Any], LanguageModel]) -> None:
    """LongCat: the router sends every token to experts that compute nothing, so that no pass uses the others."""
    config = transformers.LongcatFlashConfig(
        **{"vocab_size": 128, "hidden_size": 32, "num_layers": 1, "num_attention_heads": 4, "ffn_hidden_size": 32},
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8},
        **{"moe_topk": 2, "n_routed_experts": 4, "zero_expert_num": 4, "expert_ffn_hidden_size": 16},
        **{"head_dim": 4, "max_position_embeddings": 64},
    )
    network = transformers.LongcatFlashForCausalLM(config)
    router = network.model.layers[0].mlp.router
    router.e_score_correction_bias[4:] = 100.0
    model = wrap(network)
    stacks = {name.rpartition(".")[2]: matrix for name, matrix in _stacks(model).items()}
    sizes = {name: (found.num, found.num_outputs, found.num_inputs) for name, found in stacks.items()}
    assert sizes == {"gate_up_proj": (8, 32, 32), "down_proj": (4, 32, 16)}  # as transformers makes them
    assert share_of_blocks(model, block_matrices(model)) > 0.95


def test_the_share_of_the_blocks_by_hand(wrap: Callable[[Any], LanguageModel]) -> None:
    """Mixtral: a block has 3072 weights of attention, 4 experts of 3 * 32 * 64, a router of 128 and norms of 64."""
    model = _experts("Mixtral", wrap)
    names = block_matrices(model).keys()
    assert share_of_blocks(model, names) == pytest.approx((3072 + 24576) / (3072 + 24576 + 128 + 64))
    attention = [name for name in names if "self_attn" in name]
    assert share_of_blocks(model, [*attention, "lm_head.weight"]) == pytest.approx(3072 / 27840)
    with changed_weights(model, lambda name, weight: 2 * weight if name in attention else None) as share:
        assert share == pytest.approx(3072 / 27840)
    with changed_weights(model, lambda name, weight: 2 * weight) as share:
        assert share == 1


@pytest.mark.parametrize("how", [Quantization(levels="int4", group=24), Quantization(levels="nf4")], ids=str)
def test_a_stack_is_rounded_expert_by_expert(experts: LanguageModel, how: Quantization) -> None:
    """Groups of 24 inputs: along the wrong axis, or over the border of two experts, every number would be another."""
    before = experts.fingerprint()
    expected = {
        name: [quantize(part, how) for part in _turned(matrix, matrix.weight.detach())]
        for name, matrix in _stacks(experts).items()
    }
    names = block_matrices(experts).keys()
    with quantized(experts, how) as share:
        assert share == share_of_blocks(experts, names) > 0.9
        for name, matrix in _stacks(experts).items():
            for found, part in zip(_turned(matrix, matrix.weight), expected[name], strict=True):
                assert torch.equal(found, part)
    assert experts.fingerprint() == before


def test_every_expert_is_pruned_and_blurred_by_its_own_size(wrap: Callable[[Any], LanguageModel]) -> None:
    """One expert is a hundred times as large: a fifth of each goes, and noise is a tenth of each one's own size."""
    matrix = next(matrix for name, matrix in _stacks(_experts("GptOss", wrap)).items() if name.endswith("down_proj"))
    weight = torch.randn(matrix.weight.shape, generator=torch.Generator().manual_seed(0))
    weight[2] *= 100
    found = each_matrix(matrix, weight, lambda one: pruned(one, 0.2))
    assert [(part == 0).sum().item() for part in found] == [round(0.2 * 64 * 32)] * 4
    assert torch.equal(found[found != 0], weight[found != 0])
    noise = noisy(weight, 0.1, torch.Generator().manual_seed(1), matrix.num) - weight
    for part, own in zip(noise, weight, strict=True):
        assert part.std().item() == pytest.approx(0.1 * own.std().item(), rel=0.1)


@pytest.mark.parametrize("name", ["Mixtral", "GptOss", "Glm4Moe"])
def test_an_adapter_moves_experts_and_is_read_again_by_peft(
    name: str, wrap: Callable[[Any], LanguageModel], tmp_path: Path
) -> None:
    """Also where a dense layer bears the name that experts had before, which peft takes for the experts."""
    model = _experts(name, wrap)
    plain, names = _logits(model), {*block_matrices(model)}
    whole = share_of_blocks(model, names)
    add_lora(model, [name for name, _ in model.network.named_parameters()], LoraConfig(r=2), 0)
    assert moved_share(model) == whole
    assert torch.allclose(_logits(model), plain, atol=1e-5)
    with torch.no_grad():
        for parameter_name, parameter in model.network.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(parameter_name)))
    adapted, moved = _logits(model), {}

    def look(name: str, weight: torch.Tensor) -> None:
        moved[name] = weight.clone()

    with changed_weights(model, look):
        merged = _logits(model)
    assert not torch.allclose(adapted, plain, atol=0.1)
    assert torch.allclose(merged, adapted, atol=1e-3)
    assert torch.equal(_logits(model), adapted)
    model.network.save_pretrained(tmp_path)
    fresh = _experts(name, wrap)
    assert {
        name for name, weight in block_matrices(fresh).items() if not torch.equal(weight.weight, moved[name])
    } == names
    fresh.network = PeftModel.from_pretrained(fresh.base, str(tmp_path))
    assert torch.equal(_logits(fresh), adapted)


def test_an_adapter_on_one_part_leaves_the_others(wrap: Callable[[Any], LanguageModel]) -> None:
    """The shared expert's layers have the names of the experts' former modules; they alone are adapted."""
    model = _experts("Glm4Moe", wrap)
    chosen = [name for name in block_matrices(model) if "shared_experts.down_proj" in name]
    add_lora(model, chosen, LoraConfig(r=2), 0)
    assert moved_share(model) == share_of_blocks(model, chosen) > 0


@pytest.mark.parametrize(
    ("name", "dropout", "line"),
    [
        ("Mixtral", 0.1, r"model\.lora\.dropout: 0\.1 cannot be applied to .*experts"),
        ("Dbrx", 0.0, "does not run with"),
    ],
)
def test_what_peft_cannot_adapt_is_one_line(
    name: str, dropout: float, line: str, wrap: Callable[[Any], LanguageModel]
) -> None:
    model = _experts(name, wrap)
    with pytest.raises(UserError, match=line):
        add_lora(model, [*block_matrices(model)], LoraConfig(r=2, dropout=dropout), 0)


def test_blocks_that_reset_their_state_past_peft_are_one_line(wrap: Callable[[Any], LanguageModel]) -> None:
    """RecurrentGemma clears its state on what peft put in its place: the second batch would meet the first one's."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "lru_width": 16}
    config = RecurrentGemmaConfig(vocab_size=128, num_hidden_layers=1, block_types=["recurrent"], **sizes)
    model = wrap(RecurrentGemmaForCausalLM(config).eval())
    with pytest.raises(UserError, match="RecurrentGemmaForCausalLM does not run with peft's adapter"):
        add_lora(model, [*block_matrices(model)], LoraConfig(r=2), 0)


def test_parameters_of_recurrent_blocks_are_no_matrices(wrap: Callable[[Any], LanguageModel]) -> None:
    """A Mamba block's state decay has two axes and its convolution three; no matrix product uses either."""
    config = FalconMambaConfig(vocab_size=128, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = wrap(FalconMambaForCausalLM(config).eval())
    names = {name.removeprefix("backbone.layers.0.mixer.") for name in block_matrices(model)}
    assert names == {f"{name}.weight" for name in ("in_proj", "x_proj", "dt_proj", "out_proj")}
