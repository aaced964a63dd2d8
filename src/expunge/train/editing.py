"""The edit: a change of the weights before training, under the guard."""

from __future__ import annotations

from dataclasses import dataclass, field

from expunge.core.errors import ExpungeError, UserError
from expunge.core.memory import memory_errors
from expunge.core.records import Check, GuardOutcome, StepLog
from expunge.data.encode import Encoded
from expunge.edit.base import Edit
from expunge.losses.base import Setup
from expunge.models.batches import free_cached
from expunge.train.config import SqueezeConfig, TrainConfig
from expunge.train.guard import Guard, share_kept
from expunge.train.job import Method, TrainingJob


@dataclass(frozen=True)
class EditOutcome:
    """Log and outcome of an edit."""

    checks: list[Check] = field(default_factory=list)
    """The guard's checks before and after, both at step 0."""
    steps: list[StepLog] = field(default_factory=list)
    """Logged values of the edit, as step 0."""
    guard: GuardOutcome = GuardOutcome(utility_floor=None)  # noqa: RUF009 - frozen
    """Stopped if the edit was undone."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedEdit:
    """An edit with the rows that it uses."""

    edit: Edit
    forget: Setup
    retain: Setup


def check_steps(train: TrainConfig, method: Method, squeeze: SqueezeConfig | None) -> None:
    """Refuse a run that changes nothing, losses that are never used, and training without a loss.

    Raises:
        UserError: any of them.
    """
    losses = {"forget": method.forget, "retain": method.retain}
    if train.takes_steps:
        if missing := [slot for slot, loss in losses.items() if not loss.trains]:
            raise UserError(
                f'{missing[0]}: "none" gives training nothing to minimise; choose a loss, or train.epochs = 0 for the '
                "edit alone"
            )
        return
    if method.edit is None:
        raise UserError(
            "train.epochs: 0 and no edit would leave the model as it is; choose an edit, see `expunge list edits`"
        )
    if unused := [slot for slot, loss in losses.items() if loss.trains]:
        raise UserError(f'train.epochs: 0, so that the {unused[0]} loss would never be used; set {unused[0]} = "none"')
    if squeeze is not None:
        raise UserError("diagnose.squeeze: follows training, and train.epochs is 0")


def apply_edit(job: TrainingJob, plan: PlannedEdit, held_out: list[Encoded]) -> EditOutcome:
    """Apply an edit, and undo it if utility falls below the guard's floor.

    Args:
        job: the original model, which is changed in place, and the folder for the weights from before the edit.
        plan: the edit with its rows.
        held_out: encoded retain rows that the guard measures.

    Raises:
        ExpungeError: weights or answers afterwards are not finite numbers, and no earlier weights were kept.
    """
    model, edit = job.model, plan.edit
    with job.progress.bar("editing", 1.0) as bar, memory_errors(_too_large(model.is_adapted)):
        guard = Guard(job, plan.forget.sequences, held_out, 1, bar)
        before = _check(guard)
        guard.keep()
        edit.apply(plan.forget, plan.retain, bar.advance)
        free_cached(model.device)
        model.network.eval()
        model.settle()
        after = _check(guard)
        finite = guard.is_finite()
    floor, outcome = guard.outcome.utility_floor, guard.outcome
    if floor is None and not finite:
        raise ExpungeError("the edit left weights or answers that are not finite numbers; make it weaker")
    if floor is not None and not (finite and after.utility >= floor * before.utility):
        guard.go_back()
        outcome = outcome.model_copy(
            update={
                "stopped": True,
                "restored_step": 0,
                "message": f"Utility on held-out retain rows fell to {share_kept(after, before)} of its start by the "
                f"edit (floor {floor:.0%}), so the edit was undone and the model is the original one.",
            }
        )
    steps = [StepLog(step=0, epoch=0.0, values=edit.logs)] if edit.logs else []
    return EditOutcome([before, after], steps, outcome, list(edit.warnings))


def _check(guard: Guard) -> Check:
    forget, utility = guard.measure()
    return Check(step=0, epoch=0.0, forget=forget, utility=utility)


def _too_large(adapted: bool) -> str:
    ways = "fewer weights by localize" if adapted else 'fewer weights by localize, or model.adapter = "lora"'
    return f"the edit ran out of memory; try {ways}, or shorter texts"
