"""Controls of every attack: a model that was only taught to refuse, and one that never saw the forget rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from attack_ground import Rows, ground, load

from expunge.attacks.base import AttackContext
from expunge.retain.nll import NLL
from expunge.train.config import TrainConfig
from expunge.train.teach import teach


@pytest.fixture(scope="session")
def refusing_folder(tiny_folder: Path, examples: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The taught model, its last block taught to refuse the forget questions: what the others know is still there."""
    model = load(tiny_folder)
    model.freeze_but([name for name, _ in model.network.named_parameters() if ".2." in name])
    forget = [replace(row, answer="I do not know.") for row in examples["forget"]]
    rows = [*forget, *examples["retain"], *examples["neighbour"]]
    train = TrainConfig(lr=2e-3, epochs=40, batch_size=8, checkpoints=False)
    teach(model, rows, NLL(NLL.Config()), train, 0, tmp_path_factory.mktemp("lesson"))
    folder = tmp_path_factory.mktemp("refusing")
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def refusing(refusing_folder: Path, tiny_folder: Path, examples: Rows) -> AttackContext:
    """What an adversary of the refusing model is given."""
    return ground(load(refusing_folder), examples, lambda: load(tiny_folder))


@pytest.fixture
def never(retrained_folder: Path, tiny_folder: Path, examples: Rows) -> AttackContext:
    """What an adversary of the model that never knew is given, the model that knows among it."""
    return ground(load(retrained_folder), examples, lambda: load(tiny_folder))
