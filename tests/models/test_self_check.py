"""Answers equal those of plain passes whatever a model attends to: the self-check finds what its cache is good for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from random_models import random_network
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from expunge.core.errors import UserError
from expunge.core.progress import Progress
from expunge.models.config import ModelConfig
from expunge.models.generate import decode, score_answers
from expunge.models.load import load_model, wrap_model
from expunge.models.prefix import encode_prompts

SHARED, EACH, STEPS, NONE = (
    "cache with a shared start",
    "cache for each prompt",
    "cache for generation",
    "no cache",
)
WINDOW = 8
SIZES = {"vocab_size": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, **SIZES}
STATES = {**WIDTH, "state_size": 8, "initializer_range": 0.3}
NETWORKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "windows": (EACH, lambda: random_network("Mistral", sliding_window=WINDOW)),
    "a window that no row outgrows": (SHARED, lambda: random_network("Mistral", sliding_window=1024)),
    "windows that the cache does not know of": (
        EACH,
        lambda: built(
            "GPTNeo", hidden_size=32, num_layers=2, num_heads=4, window_size=WINDOW, attention_types=[[["local"], 2]]
        ),
    ),
    "biases by place": (EACH, lambda: built("Mpt", d_model=32, n_heads=4, n_layers=2, initializer_range=0.3)),
    "biases by token": (SHARED, lambda: built("Bloom", hidden_size=32, n_head=4, n_layer=2, initializer_range=0.3)),
    "a state": (STEPS, lambda: built("Mamba", **STATES, time_step_rank=4)),
    "a state beside keys": (
        STEPS,
        lambda: built(
            "Jamba",
            **WIDTH,
            num_attention_heads=4,
            num_key_value_heads=2,
            attn_layer_period=2,
            attn_layer_offset=1,
            num_experts=1,
            mamba_d_state=8,
            mamba_dt_rank=4,
            use_mamba_kernels=False,
            initializer_range=0.3,
        ),
    ),
    "a state beside the cache": (NONE, lambda: remembering(random_network("Llama"))),
    "a state that is not kept": (NONE, lambda: built("Rwkv", **WIDTH, attention_hidden_size=32)),
}
"""What is special about a model -> the way in which its answers are to be computed, and how to build it."""


def built(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **options})
    network = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    if name == "Rwkv":  # its own initial values make every token say the same
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return network


def remembering(network: Any) -> Any:
    """Let a network keep positions in an attribute of its cache, which a selection of rows does not reach."""

    def remember(_: Any, __: Any, options: dict[str, Any]) -> None:
        cache, places = options.get("past_key_values"), options.get("position_ids")
        if cache is not None and places is not None:
            earlier = getattr(cache, "places", places[:, :0])
            cache.places = torch.cat([earlier, places], dim=1)

    network.model.register_forward_pre_hook(remember, with_kwargs=True)
    return network


def tokens(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 128, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def plain(network: Any, ids: Sequence[int], start: int) -> Tensor:
    """Log-probabilities at the places from `start` on, by transformers alone: (T - start, V)."""
    logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1]
    return torch.log_softmax(logits.float(), -1)


@pytest.mark.parametrize("kind", NETWORKS)
def test_scores_and_greedy_answers_are_those_of_plain_passes(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Prompts that begin alike, then differ in length by more than the window; scored first, then continued."""
    summary, build = NETWORKS[kind]
    network = build()
    model = wrap_model(network, tokenizer, ModelConfig(name=kind, precision="float32", max_length=256))
    assert model.caching.summary == summary
    (start,) = tokens(12)
    prompts = [[*start, *rest] for rest in tokens(3, 20, 9)]
    answers = tokens(8, 1, 12)
    prefix = encode_prompts(model, prompts)
    scored = score_answers(prefix, [2, 0, 1, 2], [answers[2], answers[0], answers[1], answers[0]])
    for row, ids, found in zip([2, 0, 1, 2], [answers[2], answers[0], answers[1], answers[0]], scored, strict=True):
        logp = plain(network, [*prompts[row], *ids], len(prompts[row]))
        assert list(found.logp) == pytest.approx(logp[range(len(ids)), ids].tolist(), abs=1e-5)
    said = decode(prefix.select(torch.tensor([1, 0, 2])), [12, 3, 12], frozenset())
    for row, ids in zip([1, 0, 2], said, strict=True):
        assert ids == plain(network, [*prompts[row], *ids], len(prompts[row])).argmax(-1).tolist()
    assert len({token for ids in said for token in ids}) > 2, "a model that always says the same shows nothing"


def test_scores_of_states_do_not_come_from_padded_passes(tokenizer: PreTrainedTokenizerBase) -> None:
    """The first token of each answer too: what recurrent states after padding give is rounded more coarsely."""
    network = NETWORKS["a state"][1]()
    model = wrap_model(network, tokenizer, ModelConfig(name="a state", precision="float32", max_length=256))
    prompts = tokens(3, 20, 9)
    prefix = encode_prompts(model, prompts)
    width = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    mask = torch.tensor([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in prompts])
    with torch.no_grad():
        logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits
    expected = torch.stack([row[len(prompt) - 1] for row, prompt in zip(logits, prompts, strict=True)])
    torch.testing.assert_close(prefix.first_logits, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(prefix.select(torch.tensor([2, 0])).first_logits, prefix.first_logits[[2, 0]])
    prefix.step(torch.tensor([5, 6, 7]))
    after = plain(network, [*prompts[1], 6, 0], len(prompts[1]) + 1)[0]
    assert torch.allclose(prefix.first_logits.log_softmax(-1)[1], after, atol=1e-5)


@pytest.mark.parametrize("kind", ["windows that the cache does not know of", "biases by token"])
def test_half_precision_neither_hides_a_fault_nor_is_one(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    summary, build = NETWORKS[kind]
    model = wrap_model(build().bfloat16(), tokenizer, ModelConfig(name="half", precision="bfloat16"))
    assert model.caching.summary == summary


def test_a_model_that_looks_ahead_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    config = transformers.XLNetConfig(**SIZES, d_model=32, n_layer=2, n_head=4, d_inner=64, d_head=8)
    with pytest.raises(UserError, match="later tokens change what XLNetLMHeadModel computes for the tokens before"):
        wrap_model(transformers.XLNetLMHeadModel(config), tokenizer, ModelConfig(name="ahead"))


def test_a_model_that_looks_at_padding_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    """Every state is moved by the mean over its row, where there is padding."""
    network = random_network("Llama")

    def mix(_: Any, __: Any, options: dict[str, Any], output: Any) -> Any:
        mask = options.get("attention_mask")
        if mask is not None and not mask.all():
            output.last_hidden_state = output.last_hidden_state + output.last_hidden_state.mean(1, keepdim=True)
        return output

    network.model.register_forward_hook(mix, with_kwargs=True)
    with pytest.raises(UserError, match="padding after a row changes what LlamaForCausalLM computes"):
        wrap_model(network, tokenizer, ModelConfig(name="mixing"))


def test_rows_that_would_change_the_positions_of_others_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    network = random_network("Phi3", rope_parameters=rope, original_max_position_embeddings=16)
    with pytest.raises(UserError, match=r"more than 16 tokens .* set model\.max_length = 16"):
        wrap_model(network, tokenizer, ModelConfig(name="long"))
    model = wrap_model(network, tokenizer, ModelConfig(name="short", max_length=16))
    assert model.caching.summary == SHARED


def test_a_slow_way_is_announced_with_its_reason(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    class Lines(Progress):
        said: list[str]

        def say(self, text: str) -> None:
            self.said.append(text)

    progress = Lines()
    progress.said = []
    NETWORKS["a state that is not kept"][1]().save_pretrained(tmp_path)
    network = transformers.RwkvForCausalLM.from_pretrained(tmp_path)
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(ModelConfig(name=str(tmp_path)), progress)
    (line,) = progress.said
    assert line.startswith("answers are computed without a cache, which is slow: it changes hidden states by ")
    assert model.machine == ("cpu", "float32", NONE)
