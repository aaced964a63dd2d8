"""GGUF files: dequantized by transformers' own loader into an ordinary model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

_MARKS = ("is_quantized", "quantization_method", "hf_quantizer")


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Float32 model and tokenizer of a GGUF file.

    transformers marks such a model as quantized and then refuses to save it, though its weights are plain tensors;
    the mark is cleared here.
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    model: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, trust_remote_code=False
    )
    for mark in _MARKS:
        vars(model).pop(mark, None)
    vars(model.config).pop("quantization_config", None)
    return model, tokenizer


def convert(path: Path, target: Path) -> None:
    """Write a GGUF file as a safetensors folder."""
    model, tokenizer = load_gguf(path)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
