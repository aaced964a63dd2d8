"""GGUF files: dequantized by transformers' own loader into an ordinary model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import UserError
from expunge.models.portable import add_old_names

_MARKS = ("is_quantized", "quantization_method", "hf_quantizer")


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Float32 model and tokenizer of a GGUF file.

    transformers marks such a model as quantized and then refuses to save it, though its weights are plain tensors;
    the mark is cleared here.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"model.name: cannot load '{path}': it lacks {missing[0]} (of {len(missing)} missing weights)")
    _drop_tokens(tokenizer, model.get_input_embeddings().weight.shape[0])
    for mark in _MARKS:
        vars(model).pop(mark, None)
    vars(model.config).pop("quantization_config", None)
    return model, tokenizer


def _drop_tokens(tokenizer: Any, rows: int) -> None:
    """Take out tokens that the file does not have: transformers' converter adds GPT-2's end of text to any."""
    backend = getattr(tokenizer, "_tokenizer", None)
    if backend is None:
        return
    spec = json.loads(backend.to_str())
    kept = [token for token in spec["added_tokens"] if token["id"] < rows]
    if len(kept) < len(spec["added_tokens"]):
        tokenizer._tokenizer = type(backend).from_str(json.dumps({**spec, "added_tokens": kept}))


def convert(path: Path, target: Path) -> None:
    """Write a GGUF file as a safetensors folder."""
    model, tokenizer = load_gguf(path)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    add_old_names(target)
