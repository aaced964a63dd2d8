"""Blocks, head, teacher-forced scores, generation and adapters on ten architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from random_models import END, random_network
from torch import nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import UserError
from expunge.data.encode import Encoded
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.forward import score_rows
from expunge.models.generate import decode, score_answers
from expunge.models.prefix import encode_prompts

ROWS = [
    Encoded((5, 9, 17, 3, 40), 2),
    Encoded((60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70), 3),
    Encoded((8, 100, 101), 1),
]
"""Three rows of different lengths, the second longer than the sliding windows."""


@torch.no_grad()
def plain_logp(model: LanguageModel, row: Encoded) -> list[float]:
    """Log-probabilities of a row's labels from the network's own logits, by itself and without padding."""
    logits = model.base(input_ids=torch.tensor([row.ids])).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    return [logp[place - 1, row.ids[place]].item() for place in range(row.num_prompt, len(row.ids))]


def test_blocks_are_the_decoder_layers_in_order(random_model: LanguageModel) -> None:
    """Each block is where its name says, and is called once, first to last, with the width of the model."""
    calls: list[str] = []
    for name, block in random_model.blocks():
        assert random_model.base.get_submodule(name) is block
        block.register_forward_hook(lambda *_, name=name: calls.append(name))
    random_model.base(input_ids=torch.tensor([[1, 2, 3]]))
    assert calls == [name for name, _ in random_model.blocks()]
    assert [name.rpartition(".")[2] for name in calls] == ["0", "1"]


def test_head_gives_the_networks_own_logits(random_model: LanguageModel) -> None:
    ids = torch.tensor([[5, 9, 17, 3, 40]])
    with torch.no_grad():
        own = random_model.base(input_ids=ids).logits
        ours = random_model.head(random_model.decoder(input_ids=ids).last_hidden_state)
    assert own.std() > 0.3, "logits near zero would hide a cap or a scale"
    torch.testing.assert_close(ours, own)


def test_soft_capping_is_in_force(wrap: Callable[[Any], LanguageModel]) -> None:
    """Gemma2 squashes logits to (-c, c): without the cap of 1.5 the same states give logits beyond it."""
    model = wrap(random_network("Gemma2", head_dim=8, final_logit_softcapping=1.5))
    hidden = model.decoder(input_ids=torch.tensor([[5, 9, 17]])).last_hidden_state
    assert model.output_matrix(hidden).abs().max() > 2
    assert model.head(hidden).abs().max() < 1.5


def test_scores_of_a_batch_are_those_of_plain_forwards(random_model: LanguageModel) -> None:
    scores = score_rows(random_model, ROWS)
    for row, found in zip(ROWS, scores, strict=True):
        assert found.tolist() == pytest.approx(plain_logp(random_model, row), abs=1e-4)


def test_prefix_cache_gives_the_same_scores_and_transformers_greedy_tokens(random_model: LanguageModel) -> None:
    """Left-padded prompts, a cache, right-padded answers: all of it only saves work."""
    prefix = encode_prompts(random_model, [row.prompt for row in ROWS])
    scored = score_answers(prefix, [0, 1, 2], [row.labels for row in ROWS])
    for row, found in zip(ROWS, scored, strict=True):
        assert list(found.logp) == pytest.approx(plain_logp(random_model, row), abs=1e-4)
    ours = decode(prefix, 8, frozenset({END}))
    for row, tokens in zip(ROWS, ours, strict=True):
        theirs = random_model.base.generate(torch.tensor([row.prompt]), do_sample=False, max_new_tokens=8)
        expected = [token for token in theirs[0, len(row.prompt) :].tolist() if token != END]
        assert tokens == expected
    assert max(map(len, ours)) == 8


def test_lora_sits_on_the_selected_linear_layers_and_starts_as_the_identity(random_model: LanguageModel) -> None:
    """Selected: all of block 1, norms and biases too; GPT-2 keeps its weights in Conv1D, which counts as linear."""
    before = score_rows(random_model, ROWS)
    prefix, block = random_model.blocks()[1]
    selected = [f"{prefix}.{name}" for name, _ in block.named_parameters()]
    wanted = {f"{prefix}.{name}" for name, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    add_lora(random_model, selected, LoraConfig(r=2, alpha=4.0), seed=0)
    found = {name.rpartition(".lora_A")[0] for name, _ in random_model.base.named_modules() if name.endswith("lora_A")}
    assert found == wanted
    assert all("lora_" in name for name, weight in random_model.network.named_parameters() if weight.requires_grad)
    assert [row.tolist() for row in score_rows(random_model, ROWS)] == [row.tolist() for row in before]
    random_model.network(input_ids=torch.tensor([ROWS[0].ids])).logits.sum().backward()
    assert all(weight.grad is not None for weight in random_model.trainable())


def test_lora_of_everything_stays_within_the_blocks(wrap: Callable[[Any], LanguageModel]) -> None:
    """Neither the embedding nor the output matrix, a linear layer too, gets an adapter: 2 blocks of 7 matrices do."""
    model = wrap(random_network("Llama"))
    assert isinstance(model.output_matrix, nn.Linear)
    add_lora(model, [name for name, _ in model.network.named_parameters()], LoraConfig(r=2), seed=0)
    found = [name for name, _ in model.base.named_modules() if name.endswith("lora_A")]
    assert len(found) == 14
    assert all(name.startswith("model.layers.") for name in found)


def test_a_selection_without_a_linear_layer_takes_no_adapter(wrap: Callable[[Any], LanguageModel]) -> None:
    model = wrap(random_network("Llama"))
    with pytest.raises(UserError, match=r"model\.adapter: the selection has no linear layer"):
        add_lora(model, ["model.embed_tokens.weight", "model.layers.0.input_layernorm.weight"], LoraConfig(), 0)
