"""A random Bert, in the place of a sentence encoder or of an NLI classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, PreTrainedTokenizerFast


def save_tiny_bert(kind: type[Any], folder: Path, tokenizer: PreTrainedTokenizerFast, **options: Any) -> None:
    """A random Bert of one layer with the tests' tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
        **options,
    )
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
