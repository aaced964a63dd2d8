"""Small random models of the architectures that are found by name."""

from __future__ import annotations

from typing import Any

import torch
import transformers

END = 2

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 4},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 1.5, "query_pre_attn_scalar": 8, "sliding_window": 4},
    "Gemma3Text": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4},
    "Phi3": {},
    "GPTNeoX": {},
    "Olmo2": {},
    "GPT2": {},
}
"""Class prefix -> what its configuration needs besides the sizes."""


CLASSES = {"Gemma3Text": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}
"""Where the class is not called after its configuration."""


def random_network(name: str, **options: Any) -> Any:
    """Blocks of width 32, two unless told otherwise; weights so large that the logits of 128 tokens differ by units."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=options.pop("num_hidden_layers", 2),
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=0,
        **({} if name in {"GPTNeoX", "GPT2"} else {"num_key_value_heads": 2}),
        **options,
    )
    return getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config)
