"""Clean values put back into noisy runs: against plain full forwards, and what must hold for any model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from random_models import random_network
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.causal_restore import CausalRestorer, TraceResult, embedding_width, input_embeddings
from expunge.models.sites import Site

IDS = (1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
LABELS = (8, 10, 11)
NOISY = (3, 4)
NOISE = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(0)) * 0.3
FEED_FORWARD = ("mlp", "fc2", "block_sparse_moe", "shared_mlp")
ATTENTION = ("self_attn", "attn", "attention")


def modules(block: Any, site: Site) -> list[Any]:
    if site == "hidden":
        return [block]
    names = FEED_FORWARD if site == "ffn" else ATTENTION
    return [getattr(block, name) for name in names if hasattr(block, name)]


def first(output: Any) -> Tensor:
    """The hidden states, alone or before attention weights."""
    found: Tensor = output if isinstance(output, Tensor) else output[0]
    return found


@torch.no_grad()
def naively(model: LanguageModel, site: Site, places: list[int], width: int = 1) -> TraceResult:
    """One whole forward of the whole sequence for each block and draw, with hooks."""
    parts = [(layer, part) for layer, (_, block) in enumerate(model.blocks()) for part in modules(block, site)]
    embedded = input_embeddings(model, torch.tensor(IDS))[None]

    def probability(embedded: Tensor) -> float:
        logp = model.base(inputs_embeds=embedded).logits[0].log_softmax(-1)
        return float(torch.stack([logp[place - 1, IDS[place]] for place in LABELS]).mean().exp())

    kept: dict[int, Tensor] = {}

    def keeper(index: int) -> Callable[..., None]:
        return lambda *arguments: kept.update({index: first(arguments[2]).clone()})

    handles = [part.register_forward_hook(keeper(index)) for index, (_, part) in enumerate(parts)]
    clean = probability(embedded)
    for handle in handles:
        handle.remove()

    def put_back(index: int) -> Callable[..., None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            first(output).view(len(IDS), -1)[places] = kept[index].view(len(IDS), -1)[places]

        return hook

    def noisy_mean(restored: list[int]) -> float:
        handles = [
            part.register_forward_hook(put_back(index))
            for index, (layer, part) in enumerate(parts)
            if layer in restored
        ]
        found = []
        for noise in NOISE:
            changed = embedded.clone()
            changed[0, list(NOISY)] += noise
            found.append(probability(changed))
        for handle in handles:
            handle.remove()
        return sum(found) / len(found)

    def around(layer: int) -> list[int]:
        return list(range(layer - width // 2, layer - width // 2 + width))

    layers = range(len(model.blocks()))
    return TraceResult(clean, noisy_mean([]), tuple(noisy_mean(around(layer)) for layer in layers))


def close(one: TraceResult, other: TraceResult, rtol: float = 1e-4) -> None:
    torch.testing.assert_close(
        torch.tensor([one.clean, one.corrupted, *one.restored]),
        torch.tensor([other.clean, other.corrupted, *other.restored]),
        rtol=rtol,
        atol=0.0,
    )


@pytest.mark.parametrize("site", ["ffn", "attention", "hidden"])
@pytest.mark.parametrize("places", [[4], [3, 4]])
def test_every_architecture_agrees_with_whole_forwards(
    random_model: LanguageModel, site: Site, places: list[int]
) -> None:
    """Sliding windows of 4 among them, shorter than what comes before the places."""
    random_model.network.eval()
    close(
        CausalRestorer(random_model, site).trace(IDS, LABELS, NOISY, places, NOISE), naively(random_model, site, places)
    )


def test_the_whole_output_of_any_block_gives_the_clean_probability_back(random_model: LanguageModel) -> None:
    everywhere = range(len(IDS) - 1)
    found = CausalRestorer(random_model, "hidden").trace(IDS, LABELS, NOISY, everywhere, NOISE)
    assert found.restored == pytest.approx([found.clean] * 2, rel=1e-5)
    assert abs(found.clean / found.corrupted - 1) > 1e-3


@pytest.fixture
def deep(wrap: Callable[[Any], LanguageModel]) -> LanguageModel:
    """Five blocks."""
    return wrap(random_network("Llama", num_hidden_layers=5).eval())


@pytest.mark.parametrize("width", [1, 2, 3, 9])
@pytest.mark.parametrize("token_budget", [1, 50, 10_000])
def test_neighbouring_blocks_put_back_together_however_runs_are_grouped(
    deep: LanguageModel, width: int, token_budget: int
) -> None:
    found = CausalRestorer(deep, "ffn", width, token_budget).trace(IDS, LABELS, NOISY, [4], NOISE)
    close(found, naively(deep, "ffn", [4], width))


def test_without_noise_nothing_has_an_effect(deep: LanguageModel) -> None:
    found = CausalRestorer(deep).trace(IDS, LABELS, NOISY, [4], 0 * NOISE)
    assert found.corrupted == pytest.approx(found.clean, rel=1e-6)
    assert found.restored == pytest.approx([found.clean] * 5, rel=1e-5)


def test_what_is_put_back_where_nothing_changed_is_the_noisy_run(deep: LanguageModel) -> None:
    """Place 2 lies before the noise, so its clean value is the noisy one."""
    found = CausalRestorer(deep).trace(IDS, LABELS, NOISY, [2], NOISE)
    assert found.restored == pytest.approx([found.corrupted] * 5, rel=1e-5)


def test_the_model_is_left_as_it_was(deep: LanguageModel) -> None:
    deep.network.train()
    CausalRestorer(deep, "hidden", token_budget=1).trace(IDS, LABELS, NOISY, [4], NOISE)
    assert deep.network.training
    for _, block in deep.blocks():
        assert "forward" not in vars(block)
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in block.modules())


def small(kind: str, **options: Any) -> Any:
    """A random network of another kind than those of `random_network`."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=128, pad_token_id=0, initializer_range=0.3, **options)
    return transformers.AutoModelForCausalLM.from_config(config)


OTHERS: dict[str, dict[str, Any]] = {
    "Mamba": {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4, "time_step_rank": 4},
    "Bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "OPT": {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "ffn_dim": 64,
        "num_attention_heads": 4,
        "word_embed_proj_dim": 32,
    },
}


@pytest.mark.parametrize("kind", OTHERS)
def test_blocks_that_cannot_share_passes_get_whole_ones(wrap: Callable[[Any], LanguageModel], kind: str) -> None:
    """Recurrent states, a bias for each row, feed-forward layers in the block itself."""
    model = wrap(small(kind, **OTHERS[kind]))
    site: Site = "hidden" if kind == "Mamba" else "ffn"
    close(CausalRestorer(model, site).trace(IDS, LABELS, NOISY, [4, 5], NOISE), naively(model, site, [4, 5]))


def test_parts_beside_each_other_are_put_back_together(wrap: Callable[[Any], LanguageModel]) -> None:
    """Granite: experts, and a part for every token, whose outputs are added up."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "shared_intermediate_size": 16, "num_attention_heads": 4}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_key_value_heads": 2}
    model = wrap(small("GraniteMoeHybrid", **sizes, **experts, mamba_n_heads=4, layer_types=["full_attention"] * 3))
    close(CausalRestorer(model, "ffn").trace(IDS, LABELS, NOISY, [4, 5], NOISE), naively(model, "ffn", [4, 5]))


def test_a_block_without_such_a_module_is_refused(wrap: Callable[[Any], LanguageModel]) -> None:
    model = wrap(small("Mamba", **OTHERS["Mamba"]))
    with pytest.raises(UserError, match=r"model: no 'ffn' part in backbone\.layers\.0, which has norm, mixer"):
        CausalRestorer(model, "ffn")


def test_width_of_an_embedding(deep: LanguageModel) -> None:
    assert embedding_width(deep) == 32
