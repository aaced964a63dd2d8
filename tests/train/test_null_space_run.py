"""Whole runs with the null-space rule: only what was chosen moves, and a killed run resumes to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_run import Unlearning

from expunge.combine.null_space import NullSpace
from expunge.forget.deviation import Deviation
from expunge.train.config import TrainConfig

TRAIN = TrainConfig(lr=2e-3, epochs=2, batch_size=2, checkpoint_every=3, weight_decay=0.1, warmup_epochs=0.5)
MODULE = "layers.1.self_attn.o_proj.weight"


class Killed(Exception):
    """Stands for a kill: nothing in the trainer catches it."""


def build(unlearning: Callable[..., Unlearning], rule: dict[str, Any], **options: Any) -> Unlearning:
    combine = NullSpace(NullSpace.Config.model_validate({"energy": 0.05, **rule}))
    loss = Deviation(Deviation.Config(form="linear"))
    return unlearning(forget_loss=loss, combine=combine, module=MODULE, **{"train": TRAIN, **options})


def test_only_the_chosen_matrix_moves_and_forget_states_turn_away(unlearning: Callable[..., Unlearning]) -> None:
    run = build(unlearning, {}, train=TRAIN.model_copy(update={"lr": 2e-2, "checkpoints": False}))
    before = {name: weight.detach().clone() for name, weight in run.model.network.named_parameters()}
    steps = run.run().steps
    moved = {name for name, weight in run.model.network.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if MODULE in name}
    cosines = [step.values["forget_cosine"] for step in steps]
    assert cosines[0] > 0.99
    assert cosines[-1] < cosines[0] - 0.01
    assert steps[0].values["displacement"] == pytest.approx(1e-3, rel=0.01), "the kick"
    assert steps[-1].values["displacement"] > 0.01
    assert {"gradient_cosine", "projected_gradient_cosine", "null_space_share"} <= set(steps[-1].values)


ACCUMULATED = TRAIN.model_copy(update={"batch_size": 1, "accumulation": 2})


@pytest.mark.parametrize(("rule", "train"), [({"mode": "update"}, TRAIN), ({"mode": "reparam"}, ACCUMULATED)])
def test_interrupted_runs_end_as_unbroken_ones(
    unlearning: Callable[..., Unlearning], rule: dict[str, Any], train: TrainConfig
) -> None:
    """Kick and projection are made again from the original weights before the checkpoint is loaded."""
    unbroken = build(unlearning, rule, train=train)
    expected = unbroken.run()

    def stop(step: int) -> None:
        if step == 5:
            raise Killed

    folder = unlearning().folder
    with pytest.raises(Killed):
        build(unlearning, rule, train=train, folder=folder).run(stop)
    resumed = build(unlearning, rule, train=train, folder=folder)
    steps: list[int] = []
    found = resumed.run(steps.append)
    assert steps[0] == 4
    assert found.steps == expected.steps
    assert found.checks == expected.checks
    weights = resumed.weights()
    assert all(torch.equal(weights[name], weight) for name, weight in unbroken.weights().items())
