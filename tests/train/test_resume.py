"""Killed at any moment, a run resumes to the same weights, to the bit, and to the same log."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_run import Unlearning

from expunge.forget.belief_sequence import BeliefSequence
from expunge.models.config import LoraConfig
from expunge.train.checkpoints import checkpoints
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.fit import TrainingResult

TRAIN = TrainConfig(lr=1e-3, epochs=3, batch_size=2, checkpoint_every=1, warmup_epochs=0.5)
"""12 steps, 4 an epoch."""
VARIANTS = {
    "full": {"retain": "kl"},
    "accumulated": {"train": TRAIN.model_copy(update={"batch_size": 1, "accumulation": 2, "checkpoint_every": 3})},
    "refusals drawn anew each epoch": {"forget": "refusal", "retain": "answer_preservation"},
    "lora with dropout": {"lora": LoraConfig(r=4, dropout=0.3)},
    "an optimizer of our own": {
        "train": TRAIN.model_copy(update={"optimizer": "sophia_g", "optimizer_options": {"rho": 0.01}})
    },
    "guarded": {"guard": GuardConfig(utility_floor=0.7, every=2), "train": TRAIN.model_copy(update={"lr": 2e-3})},
}


class Killed(Exception):
    """Stands for a kill: nothing in the trainer catches it."""


def same(run: Unlearning, found: TrainingResult, other: Unlearning, expected: TrainingResult) -> bool:
    weights, wanted = run.weights(), other.weights()
    assert [entry.step for entry in found.steps] == [entry.step for entry in expected.steps]
    assert found.checks == expected.checks
    assert found.steps == expected.steps
    assert found.guard == expected.guard
    return weights.keys() == wanted.keys() and all(torch.equal(weights[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_runs_end_as_unbroken_ones(unlearning: Callable[..., Unlearning], variant: str) -> None:
    """Two interruptions, in the first epoch and in the second, after a step and before its checkpoint."""
    options: dict[str, Any] = {"train": TRAIN, **VARIANTS[variant]}
    unbroken = unlearning(**options)
    expected = unbroken.run()
    assert len(expected.steps) == (12 if variant != "guarded" else expected.num_steps)
    assert expected.guard.stopped == (variant == "guarded")

    folder = unlearning().folder
    for last in (2, 6) if variant != "guarded" else (expected.num_steps - 1, expected.num_steps):

        def stop(step: int, last: int = last) -> None:
            if step == last:
                raise Killed

        with pytest.raises(Killed):
            unlearning(folder=folder, **options).run(stop)
    resumed = unlearning(folder=folder, **options)
    steps: list[int] = []
    found = resumed.run(steps.append)
    assert steps[0] > 1, "a resume must not start over"
    assert same(resumed, found, unbroken, expected)


def test_samples_of_a_moving_model_are_drawn_again_as_they_were(unlearning: Callable[..., Unlearning]) -> None:
    """BS-S over NPO, sampled anew at epochs 0 and 2, with a checkpoint wanted after each step.

    In the middle of the first two epochs nobody could draw their samples again, so that the first checkpoint is that
    of step 8. A kill in step 6 starts over; one in step 10 goes on from step 8, and samples from its weights.
    """

    def build(**options: Any) -> Unlearning:
        config = BeliefSequence.Config(base="npo", samples=2, refresh_every=2, temperature=2.0, max_new_tokens=8)
        return unlearning(train=TRAIN, forget_loss=BeliefSequence(config), **options)

    unbroken = build()
    expected = unbroken.run()
    assert len({entry.values["belief_logp"] for entry in expected.steps}) == 2

    folder = unlearning().folder
    for last, kept in ((6, []), (10, ["checkpoint-8"])):

        def stop(step: int, last: int = last) -> None:
            if step == last:
                raise Killed

        with pytest.raises(Killed):
            build(folder=folder).run(stop)
        assert [path.name for path in checkpoints(folder)] == kept
    resumed = build(folder=folder)
    steps: list[int] = []
    found = resumed.run(steps.append)
    assert steps[0] == 9
    assert same(resumed, found, unbroken, expected)


def test_sigkill_at_random_moments(unlearning: Callable[..., Unlearning]) -> None:
    """A forked child writes a checkpoint after every step; each is killed up to two steps after its first, anywhere.

    12 steps outlast 5 kills: a child takes its first checkpoint and at most about two steps more.
    """
    options: dict[str, Any] = {"train": TRAIN, "lora": LoraConfig(r=4, dropout=0.3)}
    unbroken = unlearning(**options)
    start = time.monotonic()
    expected = unbroken.run()
    step_seconds = (time.monotonic() - start) / expected.num_steps

    folder = unlearning().folder
    context = multiprocessing.get_context("fork")
    for moment in torch.rand(5, generator=torch.Generator().manual_seed(0)).tolist():
        before = checkpoints(folder)
        child = context.Process(target=unlearning(folder=folder, **options).run)
        child.start()
        while child.is_alive() and checkpoints(folder) == before:
            time.sleep(0.002)
        time.sleep(2 * moment * step_seconds)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL, "the child must be at work when it is killed"
    resumed = unlearning(folder=folder, **options)
    assert same(resumed, resumed.run(), unbroken, expected)


def test_half_written_checkpoints_are_never_taken(unlearning: Callable[..., Unlearning]) -> None:
    """Half a checkpoint of step 9 under the staging name, and half a removed one, beside the whole one of step 3."""
    options: dict[str, Any] = {"train": TRAIN.model_copy(update={"checkpoint_every": 3})}
    unbroken = unlearning(**options)
    expected = unbroken.run()

    def stop(step: int) -> None:
        if step == 4:
            raise Killed

    broken = unlearning(**options)
    with pytest.raises(Killed):
        broken.run(stop)
    for half in ("staging/checkpoint-9", "doomed-checkpoint-11"):
        (broken.folder / half).mkdir(parents=True)
        (broken.folder / half / "trainer_state.json").write_text("{")
    assert [path.name for path in checkpoints(broken.folder)] == ["checkpoint-3"]
    resumed = unlearning(folder=broken.folder, **options)
    assert same(resumed, resumed.run(), unbroken, expected)


def test_a_finished_run_is_not_trained_again(unlearning: Callable[..., Unlearning]) -> None:
    """A kill after the last checkpoint, before the results: the resume loads the end and takes no step."""
    first = unlearning(train=TRAIN)
    expected = first.run()
    second = unlearning(train=TRAIN, folder=first.folder)
    steps: list[int] = []
    found = second.run(steps.append)
    assert not steps
    assert same(second, found, first, expected)


def test_a_run_that_the_guard_stopped_is_stopped_again(unlearning: Callable[..., Unlearning]) -> None:
    """A kill after the stop, before the results: the resume takes the last step again and decides as before."""
    options: dict[str, Any] = {"train": TRAIN, **VARIANTS["guarded"]}
    first = unlearning(**options)
    expected = first.run()
    assert expected.guard.stopped
    second = unlearning(folder=first.folder, **options)
    steps: list[int] = []
    found = second.run(steps.append)
    assert steps == [expected.num_steps]
    assert same(second, found, first, expected)


def test_another_seed_is_another_run(unlearning: Callable[..., Unlearning]) -> None:
    """Or the tests above would compare constants."""
    options: dict[str, Any] = {"train": TRAIN.model_copy(update={"checkpoints": False, "epochs": 1})}
    one, other = unlearning(seed=0, **options), unlearning(seed=1, **options)
    one.run()
    other.run()
    assert not torch.equal(next(iter(one.weights().values())), next(iter(other.weights().values())))
