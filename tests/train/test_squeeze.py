"""The squeezing diagnostic in a run: it looks at the right moments, changes nothing, and survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_run import Unlearning

from expunge.core.squeeze_record import Squeeze
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.train.candidates import target_of
from expunge.train.config import SqueezeConfig, TrainConfig
from expunge.train.fit import TrainingResult
from expunge.train.squeeze import initial_neighbours, token_level

SMALL = SqueezeConfig(prompts=3, beams=4, samples=4, max_new_tokens=16, top_k=5, dynamic=True)
TRAIN = TrainConfig(lr=5e-4, epochs=2, batch_size=1, schedule="constant", checkpoint_every=3)
"""16 steps, 8 an epoch."""
ASCENT: dict[str, Any] = {"forget": "gradient_ascent", "squeeze": SMALL, "train": TRAIN}


class Killed(Exception):
    """Stands for a kill: nothing in the trainer catches it."""


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The unbroken run of this module, made once."""
    return {}


@pytest.fixture
def unbroken(unlearning: Callable[..., Unlearning], kept: dict[str, Any]) -> tuple[Unlearning, TrainingResult]:
    if not kept:
        run = unlearning(**ASCENT)
        kept["run"] = (run, run.run())
    done: tuple[Unlearning, TrainingResult] = kept["run"]
    return done


def result(training: TrainingResult) -> Squeeze:
    assert training.squeeze is not None
    return training.squeeze


def test_looks_early_and_at_the_end_of_each_epoch(unbroken: tuple[Unlearning, TrainingResult]) -> None:
    """8 steps an epoch: step 8 is both, and only the first epoch has early ones."""
    checks = result(unbroken[1]).checks
    assert [check.step for check in checks] == [0, 1, 2, 4, 8, 16]
    assert [check.step for check in checks if check.end_of_epoch] == [8, 16]
    assert [check.step for check in checks if check.rouge_l is not None] == [0, 8, 16]


def test_ascent_lowers_the_target(unbroken: tuple[Unlearning, TrainingResult]) -> None:
    """Log-probability, probability and what samples still say of it all fall; nothing has moved at step 0."""
    first, *_, last = result(unbroken[1]).checks
    assert (first.target.mean_change.low, first.target.mean_change.high) == (0, 0)
    assert last.target.mean_change.high < -1
    assert last.probability.high < first.probability.low
    assert first.rouge_l is not None
    assert last.rouge_l is not None
    assert last.rouge_l.value < first.rouge_l.value
    assert last.relative["mean"].value == pytest.approx(
        last.bands["mean"]["high"].mean_change.value - last.target.mean_change.value
    )


def test_bands_start_in_their_order(unbroken: tuple[Unlearning, TrainingResult]) -> None:
    first = result(unbroken[1]).checks[0].bands
    assert first["mean"]["high"].mean.value > first["mean"]["mid"].mean.value > first["mean"]["low"].mean.value
    assert first["sum"]["high"].total.value > first["sum"]["mid"].total.value > first["sum"]["low"].total.value


def test_looking_changes_no_weight(
    unlearning: Callable[..., Unlearning], unbroken: tuple[Unlearning, TrainingResult]
) -> None:
    plain = unlearning(**{**ASCENT, "squeeze": None})
    assert plain.run().squeeze is None
    wanted = unbroken[0].weights()
    assert all(torch.equal(weight, wanted[name]) for name, weight in plain.weights().items())


def test_an_interrupted_run_records_what_an_unbroken_one_does(
    unlearning: Callable[..., Unlearning], unbroken: tuple[Unlearning, TrainingResult]
) -> None:
    """Killed after step 6, with a checkpoint of step 3: the looks at 0, 1 and 2 come from its log, that at 4 is new."""

    def stop(step: int) -> None:
        if step == 6:
            raise Killed

    folder = unlearning().folder
    with pytest.raises(Killed):
        unlearning(folder=folder, **ASCENT).run(stop)
    steps: list[int] = []
    resumed = unlearning(folder=folder, **ASCENT).run(steps.append)
    assert steps[0] > 1, "a resume must not start over"
    assert result(resumed) == result(unbroken[1])


def test_prompts_without_rewordings_are_left_out_and_told(
    unlearning: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sampled answer a prompt cannot fill three bands; the run goes on without the diagnostic."""
    monkeypatch.setattr("expunge.train.candidates.beam_search", lambda _, prompts, *__: [[] for _ in prompts])
    train = TRAIN.model_copy(update={"epochs": 1, "batch_size": 8, "checkpoints": False})
    training = unlearning(squeeze=SqueezeConfig(prompts=2, samples=1), train=train).run()
    found = result(training)
    assert training.num_steps == 1
    assert (found.prompts, found.left_out, found.generated, found.checks) == (0, 2, 2, [])
    assert found.scores["mean"].squeeze_high.value is None


def test_token_level_by_definition(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    """Against the whole distributions of a plain forward, one row at a time; the target's token is no neighbour."""
    targets = [target_of(tiny, row) for row in examples["forget"][:3]]
    near = initial_neighbours(tiny, targets, 4)
    with torch.no_grad():
        for weight in tiny.network.parameters():
            weight.mul_(0.9)
    found = token_level(tiny, targets, near, 4)
    for place, target in enumerate(targets):
        with torch.no_grad():
            logits = tiny.base(torch.tensor([target.ids])).logits[0, target.num_prompt - 1 : -1]
        share = torch.softmax(logits.double(), -1)
        mass = 0.0
        for row, (label, ids) in enumerate(zip(target.labels, near[place].tolist(), strict=True)):
            mass += sum(float(share[row, token]) for token in ids if token != label) / len(target.labels)
        assert found["neighbour_mass"][place] == pytest.approx(mass, abs=1e-5)
        assert found["top_k_mass"][place] == pytest.approx(float(share.topk(4).values.sum(-1).mean()), abs=1e-5)
        assert found["entropy"][place] == pytest.approx(float(-(share * share.log()).sum(-1).mean()), abs=1e-4)
        assert found["probability"][place] == pytest.approx(
            float(share[range(len(target.labels)), list(target.labels)].mean()), abs=1e-5
        )
