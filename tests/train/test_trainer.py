"""The trainer's step, against a loop written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from short_run import Unlearning
from torch import Tensor
from torch.nn.functional import cross_entropy

from expunge.core.errors import ExpungeError, UserError
from expunge.core.plugins import find
from expunge.data.encode import Encoded
from expunge.forget.gradient_ascent import GradientAscent
from expunge.losses.base import Loss, View
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.train.config import TrainConfig
from expunge.train.pairing import PairBatches
from expunge.train.unlearn import hold_out


def mean_nll(model: LanguageModel, rows: list[Encoded]) -> Tensor:
    """Mean over rows of a row's mean token loss, one row at a time, from the network's own logits."""
    losses = []
    for row in rows:
        logits = model.base(input_ids=torch.tensor([row.ids])).logits[0, row.num_prompt - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(row.labels)))
    return torch.stack(losses).mean()


OPTIMIZERS = {"adamw_torch_fused": torch.optim.AdamW, "sgd": torch.optim.SGD}
OPTIONS = {"adamw_torch_fused": {"eps": 1e-5}, "sgd": {}}
"""Adam divides each gradient by its own size; eps keeps it from making whole steps of rounding noise."""


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "optimizer", "lr", "clip"),
    [(4, 1, "adamw_torch_fused", 1e-4, 1.0), (2, 2, "sgd", 0.1, 0.0), (3, 2, "sgd", 0.1, 0.0)],
)
def test_steps_are_those_of_a_loop_by_hand(
    unlearning: Callable[..., Unlearning], batch_size: int, accumulation: int, optimizer: str, lr: float, clip: float
) -> None:
    """GradDiff: steps on retain NLL minus forget NLL, averaged over micro-batches.

    8 forget rows: batches of 4 and of 2 x 2 give 2 steps an epoch; batches of 3 are 3 3 2, so the second step has one
    micro-batch. AdamW would hide a wrong scale of the gradient; plain SGD without clipping shows it.
    """
    train = TrainConfig(
        lr=lr,
        epochs=2,
        batch_size=batch_size,
        accumulation=accumulation,
        schedule="constant",
        weight_decay=0.0,
        max_grad_norm=clip,
        optimizer=optimizer,
        optimizer_options=OPTIONS[optimizer] or None,
        checkpoints=False,
    )
    run = unlearning(forget="gradient_ascent", train=train)
    run.run()

    other = unlearning()
    model = other.model.network
    trained_on, _ = hold_out(other.examples["retain"], other.guard.holdout, 0)
    forget = [other.model.encoder.example(row) for row in other.examples["forget"]]
    retain = [other.model.encoder.example(row) for row in trained_on]
    stepper = OPTIMIZERS[optimizer](model.parameters(), lr=lr, weight_decay=0.0, **OPTIONS[optimizer])
    batches = PairBatches(len(forget), len(retain), batch_size, 1, seed=0)
    for epoch in range(2):
        batches.set_epoch(epoch)
        micro = list(batches)
        for start in range(0, len(micro), accumulation):
            group = micro[start : start + accumulation]
            for pairs in group:
                push = -mean_nll(other.model, [forget[row] for row, _ in pairs])
                hold = mean_nll(other.model, [retain[row] for _, rows in pairs for row in rows])
                ((push + hold) / len(group)).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            stepper.step()
            stepper.zero_grad()

    start = dict(unlearning().model.network.named_parameters())
    found = dict(run.model.network.named_parameters())
    for name, weight in model.named_parameters():
        assert (weight - start[name]).abs().max() > 1e-5, "a test of steps needs steps"
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


def test_log_says_what_each_step_did(unlearning: Callable[..., Unlearning]) -> None:
    """Linear decay with a warm-up of half an epoch of 4 steps, over 12 steps.

    The rate of step n, counted from 0, is lr n / 2 for n < 2, then lr (12 - n) / 10. NPO starts at 20 ln 2 = 13.86.
    """
    train = TrainConfig(lr=1e-3, epochs=3, batch_size=2, warmup_epochs=0.5, checkpoints=False)
    found = unlearning(train=train).run()
    assert [entry.step for entry in found.steps] == list(range(1, 13))
    rates = [entry.values["learning_rate"] for entry in found.steps]
    assert rates == pytest.approx([1e-3 * (n / 2 if n < 2 else (12 - n) / 10) for n in range(12)])
    assert found.steps[0].values["forget_loss"] == pytest.approx(20 * math.log(2), abs=1e-3)
    assert all({"forget_loss", "retain_loss", "grad_norm"} <= set(entry.values) for entry in found.steps)
    assert [check.step for check in found.checks] == [0, 4, 8, 12]
    assert (found.num_steps, found.num_epochs) == (12, 3.0)


def test_steps_end_a_run_within_an_epoch(unlearning: Callable[..., Unlearning]) -> None:
    """8 forget rows in batches of 2 are 4 steps an epoch: 6 steps are an epoch and a half; the decay ends there."""
    train = TrainConfig(lr=1e-3, steps=6, epochs=1, batch_size=2, checkpoints=False)
    found = unlearning(train=train).run()
    assert (found.num_steps, found.num_epochs) == (6, 1.5)
    rates = [entry.values["learning_rate"] for entry in found.steps]
    assert rates == pytest.approx([1e-3 * (6 - n) / 6 for n in range(6)])
    assert [check.step for check in found.checks] == [0, 4, 6]
    with pytest.raises(UserError, match=r"train\.warmup_epochs: 8 steps are more than train\.steps"):
        unlearning(train=train.model_copy(update={"warmup_epochs": 2.0})).run()


@pytest.mark.parametrize("lora", [None, LoraConfig(r=4)])
def test_retain_kl_starts_at_zero(unlearning: Callable[..., Unlearning], lora: LoraConfig | None) -> None:
    found = unlearning(retain="kl", lora=lora).run()
    assert abs(found.steps[0].values["retain_loss"]) < 1e-6
    assert found.steps[-1].values["retain_loss"] > 1e-4


def test_adapter_moves_and_base_stays(unlearning: Callable[..., Unlearning]) -> None:
    run = unlearning(lora=LoraConfig(r=4))
    before = {name: weight.detach().clone() for name, weight in run.model.network.named_parameters()}
    run.run()
    after = {name.replace(".base_layer", ""): weight for name, weight in run.model.base.named_parameters()}
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(weight.abs().max() > 0 for name, weight in after.items() if "lora_B" in name)


def test_a_loss_that_is_not_a_number_stops_the_run(unlearning: Callable[..., Unlearning]) -> None:
    class Broken(GradientAscent):
        def loss(self, view: View) -> Tensor:
            return super().loss(view) * torch.nan

    with pytest.raises(ExpungeError, match="step 1: the loss is not a number"):
        unlearning(forget_loss=Broken(Broken.Config())).run()


def test_an_unknown_optimizer_is_refused(unlearning: Callable[..., Unlearning]) -> None:
    with pytest.raises(UserError, match=r"train: .*adamw_torchh"):
        unlearning(train=TrainConfig(optimizer="adamw_torchh")).run()


@pytest.mark.parametrize(
    ("forget", "retain"),
    [
        ("npo", "nll"),
        ({"name": "gradient_ascent", "reduction": "token_mean"}, {"name": "kl", "reduction": "token_mean"}),
        ({"name": "refusal", "reduction": "token_mean"}, "answer_preservation"),
        ({"name": "misdirection", "reduction": "token_mean"}, {"name": "hidden_mse", "reduction": "token_mean"}),
        ({"name": "contrast", "reduction": "token_mean"}, {"name": "hidden_cosine", "reduction": "token_mean"}),
        ({"name": "deviation", "reduction": "token_mean"}, "nll"),
        ("simnpo", "hidden_mse"),
        ("belief_sequence", "nll"),
    ],
)
def test_uneven_micro_batches_are_one_large_batch(
    unlearning: Callable[..., Unlearning], forget: str | dict[str, Any], retain: str | dict[str, Any]
) -> None:
    """8 rows in one SGD step, as 8 and as 3 + 3 + 2: the same change of every weight, rows and tokens alike."""

    def loss(slot: str, spec: str | dict[str, Any]) -> Any:
        options = {"name": spec} if isinstance(spec, str) else dict(spec)
        kind = find(slot, options.pop("name"), Loss)  # type: ignore[type-abstract]
        return kind(kind.Config(**options))

    changes = []
    for size, accumulation in ((8, 1), (3, 3)):
        train = TrainConfig(
            lr=1e-2,
            epochs=1,
            batch_size=size,
            accumulation=accumulation,
            schedule="constant",
            optimizer="sgd",
            max_grad_norm=0.0,
            checkpoints=False,
        )
        run = unlearning(train=train, forget_loss=loss("forget", forget), retain_loss=loss("retain", retain))
        before = {name: weight.detach().clone() for name, weight in run.model.network.named_parameters()}
        run.run()
        changes.append(torch.cat([(now - before[name]).flatten() for name, now in run.weights().items()]))
    whole, parts = changes
    assert whole.norm() > 0
    assert (whole - parts).norm() < 1e-4 * whole.norm()
