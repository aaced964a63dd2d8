"""Losses scaled for float16: the training of float32, unscaled gradients for rules, no step after an overflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from short_run import Unlearning
from torch import Tensor

from expunge.combine.orthogonal import Orthogonal
from expunge.core.errors import ExpungeError
from expunge.train import scaling
from expunge.train.config import TrainConfig
from expunge.train.scaling import LossScaler

SGD = TrainConfig(
    lr=0.05, epochs=1, batch_size=2, accumulation=2, schedule="constant", optimizer="sgd", max_grad_norm=0.5
)


def faint(weight: Tensor) -> Tensor:
    """A loss whose gradient passes through a float16 product as 2e-9, below the smallest number of float16."""
    with torch.autocast("cpu", dtype=torch.float16):
        found = torch.nn.functional.linear(torch.ones(1, 4), weight).float().sum()
    return 2e-9 * found


def test_a_faint_gradient_is_lost_without_scaling_and_exact_with_it() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 4))
    faint(weight).backward()
    assert weight.grad is not None
    assert not weight.grad.any()
    weight.grad = torch.full_like(weight, 1.5)
    scaler = LossScaler()
    scaler.backward(faint(weight), [weight])
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 1.5 + 2e-9))
    weight.grad = None
    scaler.backward(faint(weight), [weight])
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 2e-9), rtol=1e-3, atol=0)
    assert scaler.finite(weight) == 1


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = torch.optim.SGD([weight], 1.0)
    scaler = LossScaler()
    for factor, moves in ((1e6 / 2e-9, False), (1e8, True)):
        weight.grad = None
        scaler.backward(factor * faint(weight), [weight])
        scaler.found(bool(scaler.finite(weight)))
        before = weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(weight.detach(), before) != moves
    assert (scaler.scale, scaler.skipped) == (2.0**15, 1)
    again = LossScaler()
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == scaler.state_dict()
    for _ in range(15):
        scaler.found(False)
        scaler.update()
    with pytest.raises(ExpungeError, match="overflow float16 at any scale"):
        scaler.update()


def test_the_scale_grows_after_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_INTERVAL", 3)
    scaler = LossScaler()
    for _ in range(3):
        scaler.found(True)
        scaler.update()
    assert scaler.scale == 2.0**17


def test_training_in_float16_is_that_of_float32(unlearning: Callable[..., Unlearning], tmp_path: Path) -> None:
    """With two micro-batches, clipping, and a rule that looks at both gradients; a checkpoint keeps the scale."""
    moved = {}
    for precision in ("float32", "float16"):
        rule = Orthogonal(Orthogonal.Config())
        run = unlearning(train=SGD, module="2.mlp.down_proj", combine=rule, folder=tmp_path / precision)
        run.model.precision = precision
        before = {name: weight.detach().clone() for name, weight in run.model.network.named_parameters()}
        training = run.run()
        moved[precision] = torch.cat([(weight - before[name]).flatten() for name, weight in run.weights().items()])
        assert not [warning for warning in training.warnings if "float16" in warning]
    error = (moved["float16"] - moved["float32"]).norm() / moved["float32"].norm()
    assert 0 < error < 0.03
    kept = torch.load(tmp_path / "float16" / "checkpoint-2" / "scaler.pt", weights_only=True)
    assert kept == {"scale": 2.0**16, "steps": 2, "skipped": 0}


def test_skipped_steps_are_counted_and_leave_the_weights(
    unlearning: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale is too high at first: both steps overflow, the log stays finite, the run says so."""
    monkeypatch.setattr(scaling, "_START", 2.0**40)
    run = unlearning(train=SGD, module="2.mlp.down_proj")
    run.model.precision = "float16"
    before = {name: weight.detach().clone() for name, weight in run.model.network.named_parameters()}
    training = run.run()
    assert all(torch.equal(weight, before[name]) for name, weight in run.weights().items())
    assert training.num_steps == 2
    assert all(value == value for step in training.steps for value in step.values.values())
    assert not any("grad_norm" in step.values for step in training.steps)
    assert [warning for warning in training.warnings if warning.startswith("2 of 2 steps were skipped")]
