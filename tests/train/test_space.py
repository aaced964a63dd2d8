"""The space that a run asks for is the space that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from short_run import Unlearning

from expunge.models.config import LoraConfig
from expunge.models.save import save_model
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.space import bytes_written

_SMALL = 250_000
"""Bytes of records beside the weights, and of headers: nothing where a real model is saved."""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("checkpoints", "optimizer", "lora", "floor"),
    [(True, "adamw_torch", None, 0.5), (True, "adamw_torch", LoraConfig(r=4), 0.5), (False, "sgd", None, None)],
)
def test_asked_is_taken(
    unlearning: Callable[..., Unlearning],
    tmp_path: Path,
    checkpoints: bool,
    optimizer: str,
    lora: LoraConfig | None,
    floor: float | None,
) -> None:
    """Two checkpoints with their moments, the guard's weights, and the model; the second copy of those goes at once."""
    train = TrainConfig(lr=1e-6, epochs=3, batch_size=8, checkpoints=checkpoints, optimizer=optimizer)
    run = unlearning(train=train, lora=lora, guard=GuardConfig(utility_floor=floor, rows=4))
    run.run()
    asked = bytes_written(run.model, train, guarded=floor is not None)
    trained = sum(weight.nbytes for weight in run.model.trainable())
    save_model(run.model, tmp_path / "model")
    taken = _size(run.folder) + _size(tmp_path / "model")
    assert len(list(run.folder.glob("checkpoint-*"))) == (2 if checkpoints else 0)
    assert asked - (trained if floor else 0) == pytest.approx(taken, abs=_SMALL)
