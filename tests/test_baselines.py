"""SSD, task vectors and WHP as whole runs, beside independent plain loops over the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from expunge.config import Run, load_run
from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.run import Result, execute
from expunge.train.pairing import PairBatches
from expunge.train.unlearn import hold_out

Rows = dict[str, tuple[Example, ...]]
Runner = Callable[..., Result]
LEAN = {"evaluate": {"metrics": ["probability"], "max_rows": 2}, "attacks": {"names": []}}


@pytest.fixture
def run(tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path) -> Callable[..., Run]:
    def build(recipe: str, *settings: str) -> Run:
        files = {split: str(path) for split, path in fact_files.items()}
        tables: dict[str, Any] = {"recipe": recipe, "model": {"name": str(tiny_folder)}, "data": files, **LEAN}
        return load_run(None, tables, ["guard.utility_floor=0", *settings])

    return build


def matrices(model: LanguageModel) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.network.named_parameters()}


def plain_loss(model: LanguageModel, row: Example) -> Tensor:
    """Mean token loss of one answer, from transformers' own logits over the whole row."""
    encoded = model.encoder.example(row)
    logits = model.network(input_ids=torch.tensor([encoded.ids])).logits[0, [place - 1 for place in encoded.places]]
    return cross_entropy(logits.float(), torch.tensor(encoded.labels))


def fisher(model: LanguageModel, rows: tuple[Example, ...]) -> dict[str, Tensor]:
    """Diagonal of the Fisher information, one row at a time."""
    named = dict(model.network.named_parameters())
    sums = {name: torch.zeros_like(weight) for name, weight in named.items()}
    for row in rows:
        gradients = torch.autograd.grad(plain_loss(model, row), list(named.values()))
        for total, gradient in zip(sums.values(), gradients, strict=True):
            total += gradient**2 / len(rows)
    return sums


def check_dampened(before: Tensor, after: Tensor, ours: Tensor, theirs: Tensor, alpha: float, lam: float) -> int:
    """The formula of the paper, but where both importances tie to rounding; gives the number of selected weights."""
    chosen = ours > alpha * theirs
    factor = torch.minimum(lam * theirs / ours, torch.ones(()))
    sure = (ours - alpha * theirs).abs() > 1e-4 * ours
    torch.testing.assert_close(after[sure], torch.where(chosen, before * factor, before)[sure], rtol=1e-3, atol=1e-6)
    return int(chosen.sum())


def test_ssd_is_the_formula_of_the_paper(
    run: Callable[..., Run], tiny: LanguageModel, examples: Rows, tmp_path: Path
) -> None:
    result = execute(run("ssd", "edit.alpha=1.5", "edit.dampening=0.7", "guard.holdout=0"), tmp_path / "run")
    ours, theirs = fisher(tiny, examples["forget"]), fisher(tiny, examples["retain"])
    assert result.model is not None
    before, after = matrices(tiny), matrices(result.model)
    selected = sum(check_dampened(before[name], after[name], ours[name], theirs[name], 1.5, 0.7) for name in before)
    share = selected / sum(weight.numel() for weight in before.values())
    assert 0.05 < share < 0.95
    (step,) = result.record.steps
    assert (step.step, result.record.num_steps) == (0, 0)
    assert step.values["selected_share"] == pytest.approx(share, rel=1e-3)
    first, last = result.record.checks
    assert last.forget < first.forget


def test_ssd_moves_chosen_weights_only_and_refuses_what_it_cannot_do(
    run: Callable[..., Run], tiny: LanguageModel, examples: Rows, tmp_path: Path
) -> None:
    where = ["localize.name=layers", "localize.layers=[1]", 'localize.modules=["mlp.down_proj"]', "guard.holdout=0"]
    settings = ["edit.against=all", "edit.alpha=1.2", "edit.dampening=0.5"]
    result = execute(run("ssd", *where, *settings), tmp_path / "some")
    assert result.model is not None
    before, after = matrices(tiny), matrices(result.model)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == ["model.layers.1.mlp.down_proj.weight"]
    both = (fisher(tiny, rows)[moved[0]] for rows in (examples["forget"], examples["forget"] + examples["retain"]))
    assert check_dampened(before[moved[0]], after[moved[0]], *both, 1.2, 0.5) > 100
    for refused, message in (
        (["model.adapter=lora"], r"model\.adapter: dampening shrinks"),
        (["edit.against=all", "edit.alpha=4"], r"edit\.alpha: 4 selects no weight, since 36%"),
        (["train.epochs=1"], r"forget: \"none\" gives training nothing"),
        (["edit=none"], r"train\.epochs: 0 and no edit"),
        (["forget=npo"], r"the forget loss would never be used"),
        (["diagnose.squeeze=true"], r"diagnose\.squeeze"),
    ):
        with pytest.raises(UserError, match=message):
            execute(run("ssd", *refused), tmp_path / "refused")
    assert not (tmp_path / "refused" / "run.toml").exists()


def test_an_edit_below_the_floor_is_undone_and_one_above_it_goes_on_to_training(
    run: Callable[..., Run], tiny: LanguageModel, tmp_path: Path
) -> None:
    floor = ["guard.utility_floor=0.9", "guard.holdout=0.5"]
    undone = execute(run("ssd", *floor, "edit.alpha=0.01", "edit.dampening=0.01"), tmp_path / "undone")
    assert undone.model is not None
    assert undone.record.guard.restored_step == 0
    assert "so the edit was undone" in undone.record.guard.message
    before, after = matrices(tiny), matrices(undone.model)
    assert all(torch.equal(before[name], after[name]) for name in before)

    settings = ["edit=dampening", "train.epochs=1", "train.lr=1e-6", "guard.utility_floor=0.1"]
    both = execute(run("npo", *settings), tmp_path / "both").record
    assert [step.step for step in both.steps] == [0, 1]
    assert [check.step for check in both.checks] == [0, 0, 1]
    assert both.checks[0].forget > both.checks[1].forget


def tuned_by_hand(tiny: LanguageModel, rows: tuple[Example, ...], epochs: int, lr: float, batch: int) -> None:
    """AdamW with linear decay on the mean token loss, in the order of the run's batches."""
    groups = [
        {"params": [one for one in tiny.network.parameters() if (one.dim() > 1) is big], "weight_decay": decay}
        for big, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    batches = PairBatches(len(rows), 0, batch, 1, seed=0)
    total, step = epochs * -(-len(rows) // batch), 0
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for pairs in batches:
            torch.stack([plain_loss(tiny, rows[index]) for index, _ in pairs]).mean().backward()
            torch.nn.utils.clip_grad_norm_(tiny.network.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / total)
            optimizer.step()
            optimizer.zero_grad()
            step += 1


TUNING = ("tuning_epochs=2", "tuning_lr=1e-4", "tuning_batch_size=4", "tuning_schedule=linear")


def test_task_vector_is_the_difference_times_minus_c(
    run: Callable[..., Run], tiny: LanguageModel, examples: Rows, tmp_path: Path
) -> None:
    settings = ["edit.strength=3.0", *(f"edit.{option}" for option in TUNING)]
    result = execute(run("task_vector", *settings), tmp_path / "run")
    assert result.model is not None
    before = matrices(tiny)
    tuned_by_hand(tiny, examples["forget"], 2, 1e-4, 4)
    tuned, found = matrices(tiny), matrices(result.model)
    apart = moved = 0.0
    for name, weight in before.items():
        wanted = weight - 3 * (tuned[name] - weight)
        apart += float((found[name] - wanted).square().sum())
        moved += float((wanted - weight).square().sum())
    assert (apart / moved) ** 0.5 < 1e-3
    assert result.record.steps[0].values["task_vector_norm"] == pytest.approx(moved**0.5 / 3, rel=1e-3)
    assert result.record.checks[1].forget < result.record.checks[0].forget
    assert not (tmp_path / "run" / "work").exists()


def test_a_task_vector_of_an_adapter_is_negated_in_the_matrices(
    run: Callable[..., Run], tiny_folder: Path, tmp_path: Path
) -> None:
    """`w0 - c (w1 - w0)` is linear in c: of two runs that fine-tune alike, the changes are as the strengths."""
    changes = []
    for strength in (1.0, 2.0):
        settings = ["model.adapter=lora", f"edit.strength={strength}", *(f"edit.{option}" for option in TUNING)]
        execute(run("task_vector", *settings), tmp_path / f"run{strength}")
        changed = load_model(ModelConfig(name=str(tmp_path / f"run{strength}" / "model")))
        changed.merge_adapter()
        before = matrices(load_model(ModelConfig(name=str(tiny_folder))))
        name = "model.layers.1.mlp.down_proj.weight"
        changes.append(matrices(changed)[name] - before[name])
    assert changes[0].abs().max() > 1e-5
    torch.testing.assert_close(changes[1], 2 * changes[0], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("target", ["label", "distribution"])
def test_whp_learns_what_fine_tuning_did_not_raise(
    run: Callable[..., Run], tiny_folder: Path, examples: Rows, tmp_path: Path, target: str
) -> None:
    settings = [f"forget.target={target}", *(f"forget.{option}" for option in TUNING)]
    train = ["train.epochs=1", "train.batch_size=4", "train.lr=1e-3", "train.schedule=constant", "forget.alpha=40.0"]
    result = execute(run("whp", *settings, *train), tmp_path / "run")
    reinforced, base, plain = (load_model(ModelConfig(name=str(tiny_folder))) for _ in range(3))
    before = matrices(plain)
    tuned_by_hand(reinforced, examples["forget"], 2, 1e-4, 4)
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for one in plain.network.parameters() if (one.dim() > 1) is big], "weight_decay": decay}
            for big, decay in ((True, 0.01), (False, 0.0))
        ],
        lr=1e-3,
    )
    kept, _ = hold_out(examples["retain"], 0.15, 0)
    for pairs in PairBatches(len(examples["forget"]), len(kept), 4, 1, seed=0):
        losses = []
        for index, _ in pairs:
            encoded = plain.encoder.example(examples["forget"][index])
            ids, places = torch.tensor([encoded.ids]), [place - 1 for place in encoded.places]
            with torch.no_grad():
                low, high = (model.network(input_ids=ids).logits[0, places] for model in (base, reinforced))
                generic = low - 40.0 * torch.relu(high - low)
            aim = generic.argmax(-1) if target == "label" else generic.softmax(-1)
            losses.append(cross_entropy(plain.network(input_ids=ids).logits[0, places], aim))
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(plain.network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert result.model is not None
    found, wanted = matrices(result.model), matrices(plain)
    apart = sum(float((found[name] - wanted[name]).square().sum()) for name in before)
    moved = sum(float((wanted[name] - before[name]).square().sum()) for name in before)
    assert (apart / moved) ** 0.5 < 2e-2
    assert 0 < result.record.steps[0].values["generic_label_share"] < 1
