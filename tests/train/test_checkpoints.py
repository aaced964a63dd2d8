"""A checkpoint that is damaged, incomplete, or made with other inputs is never gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from short_run import Unlearning

from expunge.core.errors import UserError
from expunge.train.checkpoints import check_inputs, checkpoints, inputs_of
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.fit import TrainingResult

TRAIN = TrainConfig(lr=1e-3, epochs=2, batch_size=2, checkpoint_every=1)
"""8 steps, 4 an epoch."""


class Killed(Exception):
    """Stands for a kill."""


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, tuple[Callable[[Path], object], list[str], int]] = {
    "a bit of the weights": (flip, ["checkpoint-5/model.safetensors"], 5),
    "a bit of the optimizer": (flip, ["checkpoint-5/optimizer.pt"], 5),
    "half an optimizer": (cut, ["checkpoint-5/optimizer.pt"], 5),
    "no scheduler": (Path.unlink, ["checkpoint-5/scheduler.pt"], 5),
    "half a log": (cut, ["checkpoint-5/trainer_state.json"], 5),
    "no manifest": (Path.unlink, ["checkpoint-5/manifest.json"], 5),
    "a bit of the manifest": (flip, ["checkpoint-5/manifest.json"], 5),
    "an empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), ["checkpoint-5"], 5),
    "both": (flip, ["checkpoint-5/optimizer.pt", "checkpoint-4/rng_state.pth"], 1),
    "what the guard kept": (flip, ["good.safetensors"], 1),
    "nothing that the guard kept": (Path.unlink, ["good.safetensors"], 1),
}
"""What is done -> how, to which files, and the step that training goes on with."""


@pytest.fixture
def options() -> dict[str, Any]:
    return {"train": TRAIN, "retain": "kl", "guard": GuardConfig(utility_floor=0.01, every=2)}


def killed(unlearning: Callable[..., Unlearning], options: dict[str, Any]) -> Path:
    """The folder of a run that died in step 6."""

    def stop(step: int) -> None:
        if step == 6:
            raise Killed

    run = unlearning(**options)
    with pytest.raises(Killed):
        run.run(stop)
    assert [path.name for path in checkpoints(run.folder)] == ["checkpoint-4", "checkpoint-5"]
    return run.folder


def test_damaged_checkpoints_are_passed_over(
    unlearning: Callable[..., Unlearning], options: dict[str, Any], tmp_path: Path
) -> None:
    """From the one before, or from the start; either way the end is that of an unbroken run, to the bit."""
    unbroken = unlearning(**options)
    expected = unbroken.run()
    folder = killed(unlearning, options)
    for name, (damage, files, first) in DAMAGES.items():
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        for file in files:
            damage(copy / file)
        resumed, steps = unlearning(folder=copy, **options), []
        found: TrainingResult = resumed.run(steps.append)
        assert steps[0] == first, name
        assert found.steps == expected.steps, name
        assert found.checks == expected.checks, name
        weights, wanted = resumed.weights(), unbroken.weights()
        assert all(torch.equal(weights[key], wanted[key]) for key in wanted), name


def test_changed_inputs_are_refused_by_name(unlearning: Callable[..., Unlearning], options: dict[str, Any]) -> None:
    folder = killed(unlearning, options)
    run = unlearning(folder=folder, **options)
    rows, model = run.examples["forget"], run.model
    inputs = inputs_of(model, [("forget", rows)])
    check_inputs(folder, inputs)
    others = {
        "rows of data.forget": inputs_of(model, [("forget", rows[:-1])]),
        "rows of data.forget ": inputs_of(model, [("forget", [replace(rows[0], keywords=("x",)), *rows[1:]])]),
        "rows of data.neighbour": inputs_of(model, [("forget", rows), ("neighbour", rows[:1])]),
    }
    model.tokenizer.chat_template = f"{model.tokenizer.chat_template} "
    others["chat template or tokenizer"] = inputs_of(model, [("forget", rows)])
    with torch.no_grad():
        next(model.network.parameters())[0, 0] += 1
    others["model weights"] = {**inputs, "model weights": model.fingerprint()}
    for name, other in others.items():
        with pytest.raises(UserError, match=rf"other inputs \(changed: {name.strip()}\)"):
            check_inputs(folder, other)
    changed = unlearning(folder=folder, **options)
    with torch.no_grad():
        next(changed.model.network.parameters())[0, 0] += 1
    with pytest.raises(UserError, match="model weights"):
        changed.run()
