"""The null space of experts: each has that of the tokens that are routed to it, and is held where it got too few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers import (
    DbrxConfig,
    DbrxForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerBase,
)

from expunge.combine._inputs import second_moments, trained_matrices
from expunge.combine.null_space import NullSpace
from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.expert_inputs import watched_experts
from expunge.models.forward import score_rows
from expunge.models.load import wrap_model
from expunge.models.partial import block_output

SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 16,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
EXPERTS = "model.layers.1.mlp.experts"


def wrapped(network: Any, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    return wrap_model(network, tokenizer, ModelConfig(name="random", precision="float32"))


@pytest.fixture
def mixtral(tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
    """A random Mixtral whose second block's experts are trained."""
    torch.manual_seed(0)
    model = wrapped(MixtralForCausalLM(MixtralConfig(**SIZES)), tokenizer)
    model.freeze_but([f"{EXPERTS}.gate_up_proj", f"{EXPERTS}.down_proj"])
    return model


def rows(count: int) -> list[Encoded]:
    """Of 20 to 30 tokens, so that there is padding, which no expert may count."""
    ids = torch.randint(128, (count, 30), generator=torch.Generator().manual_seed(1)).tolist()
    return [Encoded(tuple(row[: 20 + place % 11]), 5) for place, row in enumerate(ids)]


def routed(model: LanguageModel, sequences: Sequence[Encoded]) -> list[tuple[Tensor, Tensor]]:
    """For each expert of the second block the inputs of its two matrices, row by row, by hand; position 0 left out."""
    experts = model.base.get_submodule(EXPERTS)
    seen: list[tuple[Tensor, Tensor]] = []
    handle = experts.register_forward_pre_hook(lambda _, args: seen.append((args[0][1:], args[1][1:])))
    with torch.no_grad(), model.evaluating():
        for row in sequences:
            block_output(model, collate([row], [0]), 1)
    handle.remove()
    hidden, index = (torch.cat(parts) for parts in zip(*seen, strict=True))
    found = []
    for expert in range(4):
        inputs = hidden[(index == expert).any(1)]
        gate, up = (inputs @ experts.gate_up_proj[expert].detach().T).chunk(2, dim=-1)  # type: ignore[index, operator]
        found.append((inputs, silu(gate) * up))
    return found


def test_every_expert_has_the_moments_of_its_own_tokens(mixtral: LanguageModel) -> None:
    sequences = rows(12)
    matrices = trained_matrices(mixtral)
    found = second_moments(mixtral, matrices, sequences, skip_first=True, normalise=False)
    for expert, inputs in enumerate(routed(mixtral, sequences)):
        for matrix, own in zip(matrices, inputs, strict=True):
            moments = found[matrix.weight]
            assert moments.tokens[expert] == len(own) > 0
            wanted = own.double().T @ own.double() / len(own)
            torch.testing.assert_close(moments.means[expert], wanted, rtol=1e-4, atol=1e-5 * wanted.max().item())


def test_a_change_is_projected_expert_by_expert_and_an_unknown_one_held(mixtral: LanguageModel) -> None:
    """With energy 0.05 what an expert gives on its retain inputs hardly moves; one that got few tokens does not."""
    sequences = rows(11)[9:]
    rule = NullSpace(NullSpace.Config(energy=0.05))
    rule.prepare(Setup(mixtral, [], sequences, "0/retain", 1))
    down = mixtral.base.get_parameter(f"{EXPERTS}.down_proj")
    change = torch.randn(down.shape, generator=torch.Generator().manual_seed(2))
    allowed = rule.project(down, change)
    counts = []
    for expert, (_, inputs) in enumerate(routed(mixtral, sequences)):
        counts.append(len(inputs))
        if len(inputs) < 28:
            assert not allowed[expert].any()
        else:
            assert 0 < (inputs @ allowed[expert].T).norm() < 0.5 * (inputs @ change[expert].T).norm()
    assert min(counts) < 28 < max(counts)
    assert any("belong to experts" in warning for warning in rule.warnings)
    mixtral.freeze_but([f"{EXPERTS}.down_proj"])
    with pytest.raises(UserError, match="more or longer retain rows"):
        NullSpace(NullSpace.Config()).prepare(Setup(mixtral, [], rows(2), "0/retain", 1))


def test_experts_that_are_watched_give_the_same(tokenizer: PreTrainedTokenizerBase) -> None:
    """gpt-oss has its matrices the other way round, biases, and a gate of its own."""
    torch.manual_seed(0)
    model = wrapped(GptOssForCausalLM(GptOssConfig(head_dim=8, **SIZES)), tokenizer)
    experts = [block.mlp.experts for _, block in model.blocks()]
    before = score_rows(model, rows(4))
    seen: set[tuple[int, int]] = set()
    with watched_experts(experts, lambda stack, expert, inputs, tokens: seen.add((inputs.shape[1], expert))):
        watched = score_rows(model, rows(4))
    assert seen == {(width, expert) for width in (16, 28) for expert in range(4)}
    for one, other in zip(before, watched, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert [row.tolist() for row in score_rows(model, rows(4))] == [row.tolist() for row in before]


def test_experts_that_cannot_be_watched_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    config = DbrxConfig(
        vocab_size=128,
        d_model=16,
        n_heads=2,
        n_layers=2,
        max_seq_len=64,
        attn_config={"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        ffn_config={"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
    )
    model = wrapped(DbrxForCausalLM(config), tokenizer)
    model.freeze_but(["transformer.blocks.1.ffn.experts.mlp.w2"])
    with pytest.raises(UserError, match=r"cannot see what goes into .*w2, .*weighted_sum"):
        trained_matrices(model)
