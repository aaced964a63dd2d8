"""The guard: stops in time, gives the last good weights back, and measures rows that nothing was trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_run import Unlearning, filler
from torch import Tensor

from expunge.combine.weighted_sum import WeightedSum
from expunge.core.errors import UserError
from expunge.data.encode import Encoded
from expunge.losses.base import View
from expunge.models.config import LoraConfig
from expunge.retain.nll import NLL
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.guard import check_bounds
from expunge.train.job import Method
from expunge.train.unlearn import hold_out

RUINOUS = TrainConfig(lr=1e-3, epochs=10, batch_size=4, schedule="constant", checkpoints=False)
"""Forget and retain both fall within a few of these 20 steps, before retain recovers."""


class Seeing(NLL):
    """The retain NLL, which notes every row that it is given."""

    def __init__(self, config: object) -> None:
        super().__init__(config)
        self.seen: set[tuple[int, ...]] = set()

    def loss(self, view: View) -> Tensor:
        for ids, mask in zip(view.batch.input_ids, view.batch.attention_mask, strict=True):
            self.seen.add(tuple(ids[mask.bool()].tolist()))
        return super().loss(view)


def ids_of(rows: list[Encoded]) -> set[tuple[int, ...]]:
    return {row.ids for row in rows}


@pytest.mark.parametrize("lora", [None, LoraConfig(r=8)])
def test_a_broken_floor_gives_back_the_last_good_weights(
    unlearning: Callable[..., Unlearning], lora: LoraConfig | None
) -> None:
    """Checks every 2 steps. Kept: the weights of the last check whose utility was at least 0.7 of the start's."""
    guard = GuardConfig(utility_floor=0.7, every=2)
    train = RUINOUS if lora is None else RUINOUS.model_copy(update={"lr": 4e-3})
    run = unlearning(train=train, guard=guard, lora=lora)
    weights: list[dict[str, Tensor]] = []

    def keep(step: int) -> None:
        assert step == len(weights) + 1
        weights.append(run.weights())

    found = run.run(keep)
    start, *later = found.checks
    broken = later[-1]
    assert broken.utility < 0.7 * start.utility
    assert all(check.utility >= 0.7 * start.utility for check in later[:-1])
    assert found.guard.stopped
    assert found.guard.restored_step == broken.step - 2
    assert found.num_steps == broken.step < 20
    assert f"weights of step {broken.step - 2} were kept" in found.guard.message
    after = run.weights()
    assert broken.step > 2, "the untouched weights would be a weaker test"
    assert all(torch.equal(after[name], weight) for name, weight in weights[broken.step - 3].items())
    assert any(not torch.equal(after[name], weight) for name, weight in weights[-1].items())


def test_without_a_floor_nothing_is_stopped(unlearning: Callable[..., Unlearning]) -> None:
    found = unlearning(train=RUINOUS, guard=GuardConfig(utility_floor=None, every=2)).run()
    assert min(check.utility for check in found.checks) < 0.3
    assert found.num_steps == 20
    assert not found.guard.stopped


def test_reaching_the_forget_target_ends_training(unlearning: Callable[..., Unlearning]) -> None:
    run = unlearning(train=RUINOUS, guard=GuardConfig(utility_floor=None, forget_target=0.5, every=1))
    weights: list[dict[str, Tensor]] = []
    found = run.run(lambda _: weights.append(run.weights()))
    assert found.checks[-1].forget <= 0.5 < found.checks[-2].forget
    assert found.num_steps == found.checks[-1].step == len(weights) < 20
    assert found.guard.stopped
    assert found.guard.restored_step is None
    assert all(torch.equal(run.weights()[name], weight) for name, weight in weights[-1].items())


@pytest.mark.parametrize(
    ("bounds", "values"),
    [({"stop_below": {"forget_loss": 0.5}}, "forget_loss"), ({"stop_above": {"forget_loss": 0.0}}, "forget_loss")],
)
def test_a_bound_on_a_logged_value_ends_training(
    unlearning: Callable[..., Unlearning], bounds: dict[str, Any], values: str
) -> None:
    """The first step that crosses it is the last, and what it left is checked; a bound met at once leaves one step."""
    guard = GuardConfig(utility_floor=None, every=100, **bounds)
    found = unlearning(train=RUINOUS, guard=guard).run()
    seen = [step.values[values] for step in found.steps]
    assert found.guard.stopped
    assert found.guard.restored_step is None
    assert f"step {len(seen)}: {values} was {seen[-1]:.3g}" in found.guard.message
    assert found.checks[-1].step == found.num_steps == len(seen) < 20
    if "stop_below" in bounds:
        assert seen[-1] <= 0.5 < min(seen[:-1])
    else:
        assert len(seen) == 1


@pytest.mark.parametrize("option", ["stop_below", "stop_above"])
def test_a_bound_on_nothing_that_is_logged(option: str) -> None:
    """Refused before training, with near names; what the chosen fillers log is taken."""
    forget, retain = filler("forget", "deviation"), filler("retain", "hidden_mse")
    combine = WeightedSum(WeightedSum.Config(watch_conflict=True))
    with pytest.raises(UserError, match=rf"guard\.{option}: no step logs .*'forget_cosin'; did you mean forget_cosine"):
        check_bounds(GuardConfig(**{option: {"forget_cosin": 0.0}}), Method(forget, retain, combine))
    known = ("loss", "retain_loss", "grad_norm", "forget_cosine", "retain_norm", "gradient_cosine")
    check_bounds(GuardConfig(**{option: dict.fromkeys(known, 0.0)}), Method(forget, retain, combine))
    plain = WeightedSum(WeightedSum.Config())
    with pytest.raises(UserError, match="no step logs a value 'gradient_cosine'"):
        check_bounds(GuardConfig(**{option: {"gradient_cosine": 0.0}}), Method(forget, retain, plain))


def test_a_bound_that_never_met_a_value_is_told(unlearning: Callable[..., Unlearning]) -> None:
    """A retain loss of weight 0 is never computed."""
    run = unlearning(
        guard=GuardConfig(utility_floor=None, stop_above={"retain_loss": 0.0}),
        combine=WeightedSum(WeightedSum.Config(retain_weight=0.0)),
    )
    found = run.run()
    assert found.warnings == ["No step logged 'retain_loss', so guard.stop_above could not stop anything."]
    assert not found.guard.stopped


def test_checks_measure_what_scoring_measures(unlearning: Callable[..., Unlearning]) -> None:
    """Eight forget rows and two held-out retain rows are fewer than `rows`, so a check covers all of them."""
    run = unlearning()
    _, held_out = hold_out(run.examples["retain"], run.guard.holdout, run.seed)
    before = run.probability(run.examples["forget"]), run.probability(held_out)
    found = run.run()
    after = run.probability(run.examples["forget"]), run.probability(held_out)
    assert (found.checks[0].forget, found.checks[0].utility) == pytest.approx(before, abs=1e-5)
    assert (found.checks[-1].forget, found.checks[-1].utility) == pytest.approx(after, abs=1e-5)


def test_held_out_rows_are_never_trained_on(unlearning: Callable[..., Unlearning]) -> None:
    """16 retain rows, a quarter held out: after 3 epochs of 8 the 12 others were all seen, these 4 never."""
    loss = Seeing(Seeing.Config())
    run = unlearning(
        retain_loss=loss,
        train=TrainConfig(epochs=3, batch_size=4, checkpoints=False),
        guard=GuardConfig(utility_floor=None, holdout=0.25),
    )
    run.run()
    kept, held = hold_out(run.examples["retain"], 0.25, run.seed)
    encode = run.model.encoder.example
    assert loss.seen == ids_of([encode(row) for row in kept])
    assert not loss.seen & ids_of([encode(row) for row in held])
    assert len(held) == 4
