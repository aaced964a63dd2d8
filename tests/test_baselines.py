"""SSD, task vectors and WHP beside independent plain loops over the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_view import FakeView
from torch import Tensor
from torch.nn.functional import cross_entropy

from expunge.config import Run, load_run
from expunge.core.errors import ExpungeError, UserError
from expunge.data.example import Example
from expunge.edit.task_vector import TaskVector
from expunge.forget.generic_prediction import GenericPrediction, generic_logits
from expunge.losses.base import Setup
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model
from expunge.models.reference_weights import OriginalWeights
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.fit import TrainingResult
from expunge.train.job import Method, TrainingJob
from expunge.train.pairing import PairBatches
from expunge.train.teach import fine_tune
from expunge.train.unlearn import prepare, unlearn
from expunge.workflows.run import execute

Rows = dict[str, tuple[Example, ...]]
Runner = Callable[..., tuple[LanguageModel, TrainingResult]]
LEAN = {"evaluate": {"metrics": ["probability"], "max_rows": 2}, "attacks": {"names": []}}
DOWN = "model.layers.1.mlp.down_proj.weight"
ONE = ("localize.name=layers", "localize.layers=[1]", 'localize.modules=["mlp.down_proj"]')


@pytest.fixture
def run(tiny_folder: Path, fact_files: dict[str, Path]) -> Callable[..., Run]:
    def build(recipe: str, *settings: str) -> Run:
        files = {split: str(path) for split, path in fact_files.items()}
        tables: dict[str, Any] = {"recipe": recipe, "model": {"name": str(tiny_folder)}, "data": files, **LEAN}
        return load_run(None, tables, ["guard.utility_floor=0", "guard.holdout=0", *settings])

    return build


@pytest.fixture
def unlearned(run: Callable[..., Run], tiny_folder: Path, examples: Rows, tmp_path: Path) -> Runner:
    """TrainingResult as a run has it, without measuring and reports."""

    def carry_out(recipe: str, *settings: str) -> tuple[LanguageModel, TrainingResult]:
        plan, model = run(recipe, *settings), load_model(ModelConfig(name=str(tiny_folder)))
        model.freeze_but(plan.build("localize").select(model, None, 0).names)
        edit = plan.build("edit")
        method = Method(*(plan.build(slot) for slot in ("forget", "retain", "combine")), edit if edit.changes else None)
        job = TrainingJob(model, plan.train, plan.guard, 0, tmp_path)
        return model, unlearn(job, prepare(job, method, examples["forget"], examples["retain"]))

    return carry_out


def matrices(model: LanguageModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.network.named_parameters()}


def apart(found: dict[str, Tensor], wanted: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """How far two models are from each other, as a share of how far the second is from the start."""
    gap = sum(float((found[name] - wanted[name]).square().sum()) for name in start)
    moved = sum(float((wanted[name] - start[name]).square().sum()) for name in start)
    assert moved > 0
    return float((gap / moved) ** 0.5)


def plain_loss(model: LanguageModel, row: Example) -> Tensor:
    """Mean token loss of one answer, from transformers' own logits over the whole row."""
    encoded = model.encoder.example(row)
    logits = model.network(input_ids=torch.tensor([encoded.ids])).logits[0, [place - 1 for place in encoded.places]]
    return cross_entropy(logits.float(), torch.tensor(encoded.labels))


def fisher(model: LanguageModel, rows: tuple[Example, ...], names: list[str]) -> dict[str, Tensor]:
    """Diagonal of the Fisher information, one row at a time."""
    named = dict(model.network.named_parameters())
    weights = [named[name] for name in names]
    sums = [torch.zeros_like(weight) for weight in weights]
    for row in rows:
        for total, gradient in zip(sums, torch.autograd.grad(plain_loss(model, row), weights), strict=True):
            total += gradient**2 / len(rows)
    return dict(zip(names, sums, strict=True))


def check_dampened(before: Tensor, after: Tensor, ours: Tensor, theirs: Tensor, alpha: float, lam: float) -> int:
    """The formula of the paper, but where both importances tie to rounding; gives the number of selected weights."""
    chosen = ours > alpha * theirs
    factor = torch.minimum(lam * theirs / ours, torch.ones(()))
    sure = (ours - alpha * theirs).abs() > 1e-4 * ours
    torch.testing.assert_close(after[sure], torch.where(chosen, before * factor, before)[sure], rtol=1e-3, atol=1e-6)
    return int(chosen.sum())


def test_ssd_is_the_formula_of_the_paper(unlearned: Runner, tiny: LanguageModel, examples: Rows) -> None:
    model, training = unlearned("ssd", "edit.alpha=1.5", "edit.dampening=0.7")
    before, after = matrices(tiny), matrices(model)
    ours, theirs = (fisher(tiny, examples[split], list(before)) for split in ("forget", "retain"))
    selected = sum(check_dampened(before[name], after[name], ours[name], theirs[name], 1.5, 0.7) for name in before)
    share = selected / sum(weight.numel() for weight in before.values())
    assert 0.05 < share < 0.95
    (step,) = training.steps
    assert (step.step, training.num_steps) == (0, 0)
    assert step.values["selected_share"] == pytest.approx(share, rel=1e-3)
    first, last = training.checks
    assert last.forget < first.forget


def test_ssd_moves_chosen_weights_only_here_against_all_rows(
    unlearned: Runner, tiny: LanguageModel, examples: Rows
) -> None:
    model, _ = unlearned("ssd", *ONE, "edit.against=all", "edit.alpha=1.2", "edit.dampening=0.5")
    before, after = matrices(tiny), matrices(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [DOWN]
    everything = examples["forget"] + examples["retain"]
    both = (fisher(tiny, rows, [DOWN])[DOWN] for rows in (examples["forget"], everything))
    assert check_dampened(before[DOWN], after[DOWN], *both, 1.2, 0.5) > 100


def test_fine_tuning_that_diverges_names_its_own_options(unlearned: Runner) -> None:
    with pytest.raises(ExpungeError, match=r"^fine-tuning on the forget rows: .*try a lower tuning_lr"):
        unlearned("task_vector", *ONE, "edit.tuning_lr=1e18", "edit.tuning_epochs=2")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.adapter=lora", r"model\.adapter: dampening shrinks"),
        ("model.precision=float16", r"model\.precision: squared gradients vanish in float16"),
        ("edit={against='all', alpha=4}", r"edit\.alpha: 4 selects no weight, since 33%"),
        ("train.epochs=1", r"forget: \"none\" gives training nothing"),
        ("edit=none", r"train\.epochs: 0 and no edit"),
        ("forget=npo", r"the forget loss would never be used"),
        ("diagnose.squeeze=true", r"diagnose\.squeeze"),
    ],
)
def test_refusals(run: Callable[..., Run], tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        execute(run("ssd", setting), tmp_path / "refused")
    assert not (tmp_path / "refused" / "run.toml").exists()


def test_an_edit_below_the_floor_is_undone_and_one_above_it_goes_on_to_training(
    unlearned: Runner, tiny: LanguageModel
) -> None:
    model, training = unlearned(
        *("ssd", "guard.utility_floor=0.9", "guard.holdout=0.5", "edit.alpha=0.01", "edit.dampening=0.01")
    )
    assert training.guard.restored_step == 0
    assert "so the edit was undone" in training.guard.message
    before, after = matrices(tiny), matrices(model)
    assert all(torch.equal(before[name], after[name]) for name in before)

    settings = ["edit=dampening", "train.epochs=1", "train.lr=1e-6", "guard.utility_floor=0.1", "guard.holdout=0.2"]
    _, training = unlearned("npo", *settings)
    assert [step.step for step in training.steps] == [0, 1]
    assert [check.step for check in training.checks] == [0, 0, 1]
    assert training.checks[0].forget > training.checks[1].forget


def tuned_by_hand(
    model: LanguageModel, rows: tuple[Example, ...], losses: Callable[[int], Tensor], *, decay: bool, lr: float
) -> None:
    """Two epochs of AdamW on batches of four, in the order of the run's batches."""
    groups = [
        {"params": [one for one in model.network.parameters() if (one.dim() > 1) is big], "weight_decay": share}
        for big, share in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    batches, step = PairBatches(len(rows), 0, 4, 1, seed=0), 0
    for epoch in range(2):
        batches.set_epoch(epoch)
        for pairs in batches:
            torch.stack([losses(index) for index, _ in pairs]).mean().backward()
            torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / (2 * len(batches)) if decay else 1)
            optimizer.step()
            optimizer.zero_grad()
            step += 1


TUNING = ("tuning_epochs=2", "tuning_lr=1e-4", "tuning_batch_size=4", "tuning_schedule=linear")


def test_task_vector_is_the_difference_times_minus_c(unlearned: Runner, tiny: LanguageModel, examples: Rows) -> None:
    model, training = unlearned("task_vector", "edit.strength=3.0", *(f"edit.{option}" for option in TUNING))
    before, rows = matrices(tiny), examples["forget"]
    tuned_by_hand(tiny, rows, lambda index: plain_loss(tiny, rows[index]), decay=True, lr=1e-4)
    tuned = matrices(tiny)
    wanted = {name: weight - 3 * (tuned[name] - weight) for name, weight in before.items()}
    assert apart(matrices(model), wanted, before) < 1e-3
    norm = sum(float((tuned[name] - before[name]).square().sum()) for name in before) ** 0.5
    assert training.steps[0].values["task_vector_norm"] == pytest.approx(norm, rel=1e-3)
    assert training.checks[1].forget < training.checks[0].forget


def test_a_task_vector_of_an_adapter_is_negated_in_the_matrices(
    tiny: LanguageModel, examples: Rows, tmp_path: Path
) -> None:
    add_lora(tiny, [DOWN], LoraConfig(r=2), 0)
    sequences = [tiny.encoder.example(row) for row in examples["forget"]]
    config = TaskVector.Config(strength=2.5, tuning_epochs=1, tuning_lr=1e-3)
    (layer,) = (one for one in tiny.network.modules() if hasattr(one, "get_delta_weight"))
    seen: list[Tensor] = []

    def tune(setup: Setup, config: Any) -> OriginalWeights:
        found = fine_tune(TrainingJob(tiny, TrainConfig(), GuardConfig(), 0, tmp_path), setup, config)
        with found.swapped_in():
            seen.append(layer.get_delta_weight("default").detach().clone())
        return found

    setup = Setup(tiny, examples["forget"], sequences, "0/forget", 1, (), tune)
    TaskVector(config).apply(setup, setup, lambda _: None)
    assert seen[0].abs().max() > 1e-5
    torch.testing.assert_close(layer.get_delta_weight("default").detach(), -2.5 * seen[0])


def test_whp_learns_what_fine_tuning_did_not_raise(unlearned: Runner, tiny_folder: Path, examples: Rows) -> None:
    train = ["train.epochs=2", "train.batch_size=4", "train.lr=1e-3", "train.schedule=constant"]
    model, training = unlearned("whp", "forget.alpha=40.0", *(f"forget.{option}" for option in TUNING), *train)
    reinforced, base, plain = (load_model(ModelConfig(name=str(tiny_folder))) for _ in range(3))
    before, rows = matrices(plain), examples["forget"]
    tuned_by_hand(reinforced, rows, lambda index: plain_loss(reinforced, rows[index]), decay=True, lr=1e-4)

    def loss(index: int) -> Tensor:
        encoded = plain.encoder.example(rows[index])
        ids, places = torch.tensor([encoded.ids]), [place - 1 for place in encoded.places]
        with torch.no_grad():
            low, high = (one.network(input_ids=ids).logits[0, places] for one in (base, reinforced))
            labels = (low - 40.0 * torch.relu(high - low)).argmax(-1)
        return cross_entropy(plain.network(input_ids=ids).logits[0, places], labels)

    tuned_by_hand(plain, rows, loss, decay=False, lr=1e-3)
    assert apart(matrices(model), matrices(plain), before) < 2e-2
    assert 0 < training.steps[0].values["generic_label_share"] < 1


class Kept:
    """What is kept of a reinforced model whose logits are all the same."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def token_logp(self, indices: Sequence[int]) -> Tensor:
        raise AssertionError("not needed")

    def logits(self, indices: Sequence[int]) -> Tensor:
        return self._logits


def test_whp_by_hand() -> None:
    """Base (2, 1, 0), reinforced (3, 0, 0), alpha 2: generic (0, 1, 0), so the label is token 1."""
    base, reinforced = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0]])
    assert generic_logits(base, reinforced, 2.0).tolist() == [[0.0, 1.0, 0.0]]
    now = torch.tensor([[0.5, 0.2, 0.1]])
    e = math.e
    wanted = {"label": [0.0, 1.0, 0.0], "distribution": [1 / (2 + e), e / (2 + e), 1 / (2 + e)]}
    for target, weights in wanted.items():
        loss = GenericPrediction(GenericPrediction.Config(alpha=2.0, target=target))
        loss._reinforced = Kept(reinforced)
        value = loss.loss(FakeView(now, [[0]], base))
        log_total = math.log(sum(math.exp(one) for one in (0.5, 0.2, 0.1)))
        by_hand = -sum(weight * (one - log_total) for weight, one in zip(weights, (0.5, 0.2, 0.1), strict=True))
        assert float(value) == pytest.approx(by_hand, rel=1e-6)
        assert loss.logs["generic_label_share"] == 0
