"""Which optimizer a run steps with, and that its options reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_run import Unlearning

from expunge.core.errors import UserError
from expunge.core.permission import granted
from expunge.train.config import TrainConfig
from expunge.train.trainer import check_train

ONE_STEP = {"lr": 1e-3, "epochs": 1, "batch_size": 8, "schedule": "constant", "weight_decay": 0.0, "checkpoints": False}


def moved(unlearning: Callable[..., Unlearning], optimizer: str, **options: Any) -> torch.Tensor:
    """How far each weight with a gradient moved in one step, as a share of the rate."""
    train = TrainConfig(**ONE_STEP, optimizer=optimizer, optimizer_options=options)
    check_train(train)
    run = unlearning(train=train)
    before = {name: weight.detach().clone() for name, weight in run.model.network.named_parameters()}
    run.run()
    inner = [name for name in before if "mlp.down_proj" in name]
    return torch.cat([(run.weights()[name] - before[name]).abs().flatten() for name in inner]) / 1e-3


def test_sophia_with_a_tiny_rho_takes_steps_of_signs(unlearning: Callable[..., Unlearning]) -> None:
    """And with a huge one, none: the options are the optimizer's own."""
    torch.testing.assert_close(moved(unlearning, "sophia_g", rho=1e-12).median(), torch.tensor(1.0), rtol=1e-3, atol=0)
    assert moved(unlearning, "sophia_g", rho=1e12).max() < 1e-4


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "hf_adamw"])
def test_a_large_epsilon_stops_adamw(unlearning: Callable[..., Unlearning], optimizer: str) -> None:
    assert moved(unlearning, optimizer, eps=1e6).max() < 1e-4


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("adamw_torch_fused", {"eps": 1e-6, "betas": [0.8, 0.9]}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("rmsprop", {"eps": 1e-4, "alpha": 0.5}),
        ("hf_adamw", {"betas": [0.8, 0.9]}),
        ("expunge.optimizers.sophia_g:SophiaG", {"rho": 0.1}),
    ],
)
def test_options_that_are_known(optimizer: str, options: dict[str, Any]) -> None:
    with granted(classes=[optimizer]):
        check_train(TrainConfig(optimizer=optimizer, optimizer_options=options))


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        ("sophia_g", {"rhoo": 0.9}, r"unknown key 'train\.optimizer_options\.rhoo'; did you mean rho\?"),
        ("sophia_g", {"rho": -1}, r"train\.optimizer_options\.rho: .* got -1"),
        ("hf_adamw", {"betas": [0.9, 1.0]}, r"train\.optimizer_options\.betas\.1: .* got 1\.0"),
        ("adamw_torch", {"epss": 1e-6}, r"train\.optimizer_options: .*'epss' to adamw_torch; did you mean eps\?"),
        ("adamw_torch", {"eps": -1}, r"train\.optimizer_options: adamw_torch: Invalid epsilon value"),
        ("adamw_torch", {"betas": 0.9}, r"train\.optimizer_options\.betas: .* got 0\.9"),
        ("sgd", {"momentun": 0.9}, r"train\.optimizer_options: .*'momentun' to sgd; did you mean momentum\?"),
        ("sophiag", {}, r"train\.optimizer: no 'sophiag'; did you mean sophia_g\?"),
        ("nowhere:Optimizer", {}, r"optimizers: cannot load 'nowhere:Optimizer'"),
    ],
)
def test_options_that_would_not_arrive_are_refused(optimizer: str, options: dict[str, Any], message: str) -> None:
    with granted(classes=[optimizer]), pytest.raises(UserError, match=message):
        check_train(TrainConfig(optimizer=optimizer, optimizer_options=options))
