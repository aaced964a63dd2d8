"""The folder that everything.py works in: a random model with half-precision weights, its rows, and its judges."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny_bert import save_tiny_bert
from tiny_llama import tiny_llama
from transformers import (
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from expunge.data.sources.fictional import Fictional

NUM_ROWS = 10
"""The fewest texts of a kind that mutual information can be estimated from."""


def write_world(folder: Path, words: PreTrainedTokenizerFast, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write it, with a tokenizer that knows the rows' letters."""
    network = tiny_llama(
        words,
        intermediate_size=48,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.2,
        eos_token_id=2,
        pad_token_id=None,
    )
    network.to(dtype).save_pretrained(folder)
    words.save_pretrained(folder)
    save_tiny_bert(BertModel, folder / "encoder", words)
    for name, label in (("nli", "entailment"), ("gibberish", "clean")):
        save_tiny_bert(
            BertForSequenceClassification, folder / name, words, id2label={0: label, 1: "other"}, num_labels=2
        )
    source = Fictional(Fictional.Config(authors=10, questions=5, forget_authors=2))
    retain = source.rows("retain")
    rows = {"forget": source.rows("forget"), "retain": retain[:NUM_ROWS], "neighbour": retain[NUM_ROWS : 2 * NUM_ROWS]}
    rows = {name: found[:NUM_ROWS] for name, found in rows.items()}
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return folder
