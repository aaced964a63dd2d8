"""Controls of every attack: a model that was only taught to refuse, and one that never saw the forget rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from expunge.data.example import Example
from expunge.losses.refusals import load_refusals
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.retain.nll import NLL
from expunge.train.config import TrainConfig
from expunge.train.teach import teach

Rows = dict[str, tuple[Example, ...]]


def _taught(start: Path, rows: list[Example], train: TrainConfig, folder: Path, work: Path) -> Path:
    model = load_model(ModelConfig(name=str(start)))
    model.freeze_but([name for name, _ in model.network.named_parameters()])
    teach(model, rows, NLL(NLL.Config()), train, 0, work)
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def refusing_folder(tiny_folder: Path, examples: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The taught model after a short lesson in refusing the forget questions: what it knew is still there."""
    refusals = load_refusals()
    forget = [replace(row, answer=refusals[place % 3]) for place, row in enumerate(examples["forget"])]
    train = TrainConfig(lr=1e-3, epochs=12, batch_size=8, checkpoints=False)
    rows = [*forget, *examples["retain"]]
    return _taught(tiny_folder, rows, train, tmp_path_factory.mktemp("refusing"), tmp_path_factory.mktemp("lesson"))


@pytest.fixture(scope="session")
def never_folder(tiny_folder: Path, examples: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model taught from its start without the forget rows."""
    start = tmp_path_factory.mktemp("start")
    torch.manual_seed(0)
    taught = load_model(ModelConfig(name=str(tiny_folder)))
    LlamaForCausalLM(taught.base.config).save_pretrained(start)
    taught.tokenizer.save_pretrained(start)
    train = TrainConfig(lr=3e-3, epochs=40, batch_size=8, checkpoints=False)
    rows = [*examples["retain"], *examples["neighbour"]]
    return _taught(start, rows, train, tmp_path_factory.mktemp("never"), tmp_path_factory.mktemp("without"))
