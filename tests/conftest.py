"""A tiny chat model that really knows some invented facts: taught once in each test session, in seconds."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_bert import save_tiny_bert
from tiny_llama import byte_pairs, tiny_llama
from transformers import BertModel, LlamaForCausalLM, PreTrainedTokenizerFast

from expunge.data.example import Example
from expunge.data.load import examples_from_rows
from expunge.data.sources.fictional import Fictional
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.models.pull import embedded
from expunge.retain.nll import NLL
from expunge.train.config import TrainConfig
from expunge.train.teach import teach

NUM_FORGET = 8
NUM_RETAIN = 16
NUM_NEIGHBOUR = 8


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny matrices are slower on two threads, and much slower beside another process."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _imported_modules_are_no_garbage() -> None:
    """Every training collects garbage; looking through torch and transformers each time took a third of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _float32() -> Iterator[None]:
    """`model.precision = "auto"` means float32 on every machine: what is compared here rounds alike everywhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cpu.get_capabilities", dict)
        yield


@pytest.fixture(scope="session")
def facts() -> dict[str, list[dict[str, Any]]]:
    """Rows by split: invented authors to forget, to keep, and to be neighbours that are taught but never trained on."""
    source = Fictional(Fictional.Config(authors=8, questions=4, forget_authors=2))
    retain = source.rows("retain")
    return {
        "forget": source.rows("forget")[:NUM_FORGET],
        "retain": retain[:NUM_RETAIN],
        "neighbour": retain[NUM_RETAIN : NUM_RETAIN + NUM_NEIGHBOUR],
    }


@pytest.fixture(scope="session")
def examples(facts: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[Example, ...]]:
    """The same rows as examples."""
    return {name: examples_from_rows(rows, name) for name, rows in facts.items()}


@pytest.fixture(scope="session")
def words(facts: dict[str, list[dict[str, Any]]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the facts' own words, with a chat template and `pad == eos`."""
    return byte_pairs([str(value) for rows in facts.values() for row in rows for value in row.values()], 900)


@pytest.fixture(scope="session")
def tokenizer(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of the facts' own words, under a name that a test file may give to others."""
    return words


@pytest.fixture(scope="session")
def tiny_folder(
    tokenizer: PreTrainedTokenizerFast,
    examples: dict[str, tuple[Example, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A saved tiny Llama that was taught every fact in this session."""
    folder = tmp_path_factory.mktemp("tiny")
    network = tiny_llama(
        tokenizer,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = load_model(ModelConfig(name=str(folder)))
    rows = [row for split in examples.values() for row in split]
    model.freeze_but([name for name, _ in model.network.named_parameters()])
    train = TrainConfig(lr=3e-3, epochs=40, batch_size=8, checkpoints=False)
    teach(model, rows, NLL(NLL.Config()), train, 0, tmp_path_factory.mktemp("teach"))
    model.network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def retrained_folder(
    tiny_folder: Path, examples: dict[str, tuple[Example, ...]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A saved tiny Llama that was taught all facts but those to forget."""
    folder = tmp_path_factory.mktemp("retrained")
    model = load_model(ModelConfig(name=str(tiny_folder)))
    torch.manual_seed(0)
    model.network = LlamaForCausalLM(model.base.config)  # a loaded network keeps its weights if told to draw new ones
    model.freeze_but([name for name, _ in model.network.named_parameters()])
    rows = [*examples["retain"], *examples["neighbour"]]
    train = TrainConfig(lr=3e-3, epochs=40, batch_size=8, checkpoints=False)
    teach(model, rows, NLL(NLL.Config()), train, 0, tmp_path_factory.mktemp("teach"))
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> LanguageModel:
    """A fresh copy of the taught tiny model."""
    return load_model(ModelConfig(name=str(tiny_folder)))


@pytest.fixture(scope="session")
def fact_files(facts: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The facts as JSONL files."""
    folder = tmp_path_factory.mktemp("facts")
    paths = {name: folder / f"{name}.jsonl" for name in facts}
    for name, rows in facts.items():
        paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return paths


@pytest.fixture(autouse=True, scope="session")
def _no_cache(tmp_path_factory: pytest.TempPathFactory, words: PreTrainedTokenizerFast) -> Iterator[None]:
    """No test reads the user's cache or reaches the network; the cache holds a tiny random sentence encoder."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_CACHE", str(cache))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setenv("PIP_NO_INDEX", "1")
        name = "all-minilm-l6-v2"
        save_tiny_bert(BertModel, cache / f"{name}-{embedded()[name].sha256[:12]}", words)
        yield
