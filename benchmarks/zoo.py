"""Tiny random models of every causal language model that the installed transformers can build without a network.

`names()` lists them, `network(name)` builds one, `save(name, folder)` writes a model folder with a tokenizer. Most come
from one rule: the architecture's default configuration with every size replaced by a small one. `EXCEPTIONS` holds what
the rule cannot know. Sliding windows are 8 tokens, shorter than any chat prompt.

    python benchmarks/zoo.py            # builds every one and prints size, seconds and what failed
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedTokenizerFast,
)
from transformers.models.auto import modeling_auto

WINDOW = 8
CONTEXT = 512
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ("<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|image|>", "<|other|>")
VOCABULARY = 256 + len(SPECIAL)

WRAPPERS = (
    "aria",
    "aya_vision",
    "cohere2_vision",
    "glm4v",
    "idefics3",
    "internvl",
    "gemma3",
    "gemma4",
    "lfm2_vl",
    "llama4",
    "llava",
    "llava_next",
    "llava_onevision",
    "mistral3",
    "mllama",
    "paligemma",
    "qwen2_vl",
    "qwen3_5",
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_vl_moe",
    "smolvlm",
)
"""Text models with a vision tower."""

OTHERS = ("t5", "led")
"""Models that translate one text into another, with an encoder: no causal language models."""

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "width", "emb_dim", "dim_model"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim", "decoder_hidden_size", "lru_width", "input_dim"), 32),
    **dict.fromkeys(("attention_hidden_size", "mm_hidden_size", "vision_output_dim", "out_hidden_size"), 32),
    **dict.fromkeys(("projector_input_dim", "projector_output_dim", "projection_dim"), 32),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "dim_ff", "d_ff", "ffn_hidden_size", "dff"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "intermediate_size_mlp", "attention_intermediate_size"), 64),
    **dict.fromkeys(
        ("ffn_embed_dim", "feed_forward_proj_size", "dense_intermediate_size", "mlp_intermediate_size"), 64
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size"), 16
    ),
    **dict.fromkeys(("shared_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"), 16),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "attention_heads", "linear_num_value_heads", "linear_num_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "global_head_dim", "linear_key_head_dim", "linear_value_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(
        ("linear_head_dim", "mamba_head_dim", "mamba_d_head", "attention_head_dim", "kv_channels", "swa_head_dim"), 8
    ),
    **dict.fromkeys(("qk_rope_head_dim", "rotary_dim", "index_head_dim"), 4),
    **dict.fromkeys(("qk_nope_head_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "time_step_rank", "mamba_dt_rank"), 16),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "mamba_state_size", "conv_size"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size", "chunk_length", "block_size"), 8),
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups", "n_group", "topk_group", "mamba_num_groups"), 1),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk", "top_k_experts"), 2
    ),
    **dict.fromkeys(("n_shared_experts", "moe_num_shared_experts", "num_shared_experts", "first_k_dense_replace"), 1),
    **dict.fromkeys(("sliding_window", "attention_window_size", "attention_chunk_size", "window_size"), WINDOW),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), CONTEXT),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "max_sequence_length", "seq_length"), CONTEXT),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "n_vocab"), VOCABULARY),
    **dict.fromkeys(("depth", "vision_layers", "encoder_layers", "num_encoder_layers", "encoder_num_layers"), 2),
    **dict.fromkeys(("image_size", "img_size"), 16),
    **dict.fromkeys(("initializer_range", "init_std", "initializer_std"), 0.2),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    "mamba_d_ssm": 64,
    "patch_size": 8,
    "qk_head_dim": 12,
    "mrope_section": [1, 1, 2],
    "moe_layer_freq": 1,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 1,
    "laurel_rank": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "image_token_id": 6,
    "image_token_index": 6,
    "video_token_id": 7,
}
"""Field of a configuration, at any depth -> its value here."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_decoder_layers")

_MROPE = {"text_config": {"rope_parameters": {"mrope_section": [1, 1, 2]}}}
_MIXED = ["linear_attention", "full_attention"] * 2
_STEPS = {"layer_types": ["conv", "full_attention", "conv", "full_attention"], "num_hidden_layers": 4}

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_expert_group": 1, "num_group": 1},
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [1, 3]},
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"logit_scale": 0.5},
    "cohere2_moe": {"logit_scale": 0.5},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0},
        "num_key_value_heads": 2,
        "ffn_config": {"ffn_hidden_size": 16},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"lm_head_multiplier": 0.5, "embedding_multiplier": 2.0},
    "gemma2": {"final_logit_softcapping": 1.5},
    "glm4v": _MROPE,
    "granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "granitemoe": {"logits_scaling": 4.0},
    "granitemoehybrid": {"logits_scaling": 4.0, "num_hidden_layers": 4, "layers_block_type": _MIXED},
    "hrm_text": {"num_layers_per_stack": 2, "num_hidden_layers": 16},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "moe_intermediate_size": 16},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {**_STEPS, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"num_hidden_layers": 4},
    "qwen2_vl": _MROPE,
    "qwen2_5_vl": _MROPE,
    "reformer": {"axial_pos_embds": False, "num_buckets": 4},
    "xlnet": {"d_head": 8},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_blocks": 2, "autocast_kernel_dtype": "float32"},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
    "zamba2": {
        "attention_hidden_size": 64,
        "hybrid_layer_ids": [1, 3],
        "mamba_headdim": 8,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
        "num_query_groups": 4,
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""Model type -> fields that differ from the rule; a table is a configuration inside the configuration."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, one key head": ("llama", {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True, "head_dim": 16}),
    "llama, llama3 positions": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "llama, dynamic positions": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
            "max_position_embeddings": 24,
        },
    ),
    "llama, yarn positions": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "phi3, long positions": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 24,
            },
            "original_max_position_embeddings": 24,
        },
    ),
    "phi3, partly rotated": (
        "phi3",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    ),
    "gpt_neox, one after another": ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
    "stablelm, normalized": ("stablelm", {"qk_layernorm": True, "use_parallel_residual": True}),
    "falcon, one key head": ("falcon", {"multi_query": True, "new_decoder_architecture": False, "parallel_attn": True}),
    "falcon, grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon, alibi": (
        "falcon",
        {"alibi": True, "multi_query": False, "new_decoder_architecture": False, "num_kv_heads": 4},
    ),
    "opt, projected": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt2, scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "gpt_bigcode, all key heads": ("gpt_bigcode", {"multi_query": False}),
    "bloom, post-norm residual": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "qwen2, windows above": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention", "sliding_attention"]},
    ),
    "qwen3_moe, one dense": ("qwen3_moe", {"mlp_only_layers": [0], "norm_topk_prob": True}),
    "deepseek_v3, whole queries": ("deepseek_v3", {"q_lora_rank": None}),
    "mistral, no window": ("mistral", {"sliding_window": None, "head_dim": 16}),
}
"""Name -> model type and fields that differ from the zoo's own configuration: settings that published models have."""


def names() -> list[str]:
    """Model types, each with a model class of its own, text models first, those that must be refused last."""
    found: dict[str, str] = {}
    for name, kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if name in CONFIG_MAPPING and (kind not in found or name.endswith("_text")):
            found[kind] = name
    texts = list(found.values())
    return [*texts, *VARIANTS, *(name for name in (*WRAPPERS, *OTHERS) if name not in texts and name in CONFIG_MAPPING)]


def configuration(name: str) -> Any:
    """A small configuration of a model type.

    Raises:
        Exception: whatever the configuration class makes of sizes that do not fit each other.
    """
    name, changes = VARIANTS.get(name, (name, {}))
    kind = CONFIG_MAPPING[name]
    content = _plain(kind().to_dict())
    _shrink(content)
    _merge(content, EXCEPTIONS.get(name, {}))
    content |= changes
    for key in ("transformers_version", "architectures", "model_type"):
        content.pop(key, None)
    return kind.from_dict(content)


def network(name: str, seed: int = 0) -> Any:
    """A random model of a type, in evaluation mode.

    Raises:
        Exception: whatever its class raises where it cannot be built.
    """
    config = configuration(name)
    torch.manual_seed(seed)
    factory: Any = AutoModelForImageTextToText if name in WRAPPERS else AutoModelForCausalLM
    factory = AutoModelForSeq2SeqLM if name in OTHERS else factory
    return factory.from_config(config, dtype=torch.float32).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with a chat template; every model here has its vocabulary."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate((*SPECIAL, *letters))}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.add_special_tokens(list(SPECIAL))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    names = {"pad_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2]}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=CHAT, **names)


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a model folder."""
    network(name, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def _plain(value: Any) -> Any:
    """Tables and lists only: `to_dict` leaves configurations within some of them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _shrink(content: dict[str, Any]) -> None:
    """Replace sizes by small ones, here and in tables within; as many layers as it takes to have one of each kind."""
    total = next((content[key] for key in LAYERS if isinstance(content.get(key), int)), None)
    lists = {key: value for key, value in content.items() if isinstance(value, list) and value and len(value) == total}
    kinds = {key: list(dict.fromkeys(value)) for key, value in lists.items() if isinstance(value[0], str)}
    layers = 4 if any(len(found) > 1 for found in kinds.values()) else 2
    for key, value in content.items():
        if key == "per_layer_config" and isinstance(value, dict):
            content[key] = _of_kinds(value, content["layer_types"])  # already shrunk: it comes earlier
        elif isinstance(value, dict):
            _shrink(value)
        elif key in kinds:
            content[key] = [kinds[key][place % len(kinds[key])] for place in range(layers)]
        elif key in lists:
            size = key.removesuffix("_per_layer")
            content[key] = [SIZES.get(size, value[0])] * layers
        elif key in LAYERS and isinstance(value, int):
            content[key] = layers
        elif key in SIZES and value is not None:
            content[key] = SIZES[key]
    if "kv_lora_rank" in content:  # latent attention: the rotated part of a head is a head of its own
        content["head_dim"] = content["qk_rope_head_dim"]
        content["num_key_value_heads"] = content["num_attention_heads"]


def _of_kinds(settings: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
    """Settings of single layers (Gemma 4: wider heads where attention is full), for the small number of layers."""
    _shrink(first := next(iter(settings.values())))
    return {str(place): first for place, kind in enumerate(kinds) if kind == "full_attention"}


def _merge(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), dict):
            _merge(content[key], value)
        else:
            content[key] = value


def main() -> None:
    """Build every model, run it on a few tokens, and report failures."""
    warnings.simplefilter("ignore")
    chosen = sys.argv[1:] or names()
    ids = torch.randint(8, VOCABULARY, (1, 24), generator=torch.Generator().manual_seed(0))
    failed = []
    for name in chosen:
        start = time.perf_counter()
        try:
            built = network(name)
            with torch.no_grad():
                logits = built(input_ids=ids).logits
            size = sum(weight.numel() for weight in built.parameters())
            spread = logits.float().std().item()
            print(
                f"{name}: {type(built).__name__}, {size} weights, logits {spread:.3g}, "
                f"{time.perf_counter() - start:.1f} s",
                flush=True,
            )
        except Exception as error:  # the point of the list
            failed.append(name)
            text = str(error).splitlines()
            print(f"{name}: FAILED {type(error).__name__}: {text[0][:150] if text else ''}", flush=True)
    print(f"{len(chosen) - len(failed)} of {len(chosen)} built; not: {', '.join(failed) or 'none'}")


if __name__ == "__main__":
    main()
