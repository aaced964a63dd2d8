"""Unlearning: prepare everything that needs the original model; then edit the weights, train them, or both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.generator import named_generator
from expunge.losses.base import Loss, Setup
from expunge.models.forward import RowSet, row_set
from expunge.models.reference_weights import OriginalWeights
from expunge.train.answers import other_wordings, own_answers
from expunge.train.config import TrainConfig
from expunge.train.editing import EditOutcome, PlannedEdit, apply_edit
from expunge.train.fit import TrainingResult, fit
from expunge.train.job import Method, Stream, Task, TrainingJob
from expunge.train.squeeze import follow
from expunge.train.teach import fine_tune
from expunge.train.trainer import steps_per_epoch

_EDIT = "edit"
"""Folder below the job's for the weights from before an edit."""


def hold_out(rows: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Retain rows to train on, and those that the guard measures; never all of them held out."""
    count = min(round(len(rows) * share), len(rows) - 1)
    order = torch.randperm(len(rows), generator=named_generator(f"{seed}/guard/holdout")).tolist()
    held = set(order[:count])
    return (
        [row for index, row in enumerate(rows) if index not in held],
        [row for index, row in enumerate(rows) if index in held],
    )


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs of the original model; made before any weight moves."""

    task: Task
    held_out: list[Encoded]
    """Retain rows that the guard measures."""
    targets: Sequence[Example]
    """Forget rows with the answers that are trained on."""
    edit: PlannedEdit | None = None
    """Changes the weights before the first step."""


def prepare(
    job: TrainingJob,
    method: Method,
    forget_rows: Sequence[Example],
    retain_rows: Sequence[Example],
    reference: OriginalWeights | None = None,
) -> Prepared:
    """Prepare losses, edit and combination rule on the original model; they refuse unsuitable input here.

    Args:
        job: the original model, which is only read, and the settings.
        method: losses, combination rule and edit.
        forget_rows: what to forget.
        retain_rows: what to keep; a share is held out for the guard.
        reference: weights of another model that the losses compare with. Default: those of the model itself.

    Raises:
        UserError: rows, layers or weights that a loss, the edit or the combination rule cannot use.
    """
    model, train, seed = job.model, job.train, job.seed
    trained_on, held_out = hold_out(retain_rows, job.guard.holdout, seed)
    targets = forget_rows
    if train.answers == "own":
        targets = own_answers(model, forget_rows, job.progress, unproven=False, match=job.match)
        others = other_wordings(model, targets, train.wordings, f"{seed}/wordings", job.progress, job.match)
        forget_rows = [*targets, *others]
        trained_on = own_answers(model, trained_on, job.progress, match=job.match)
    encode, epochs = model.encoder.example, _passes(len(forget_rows), train)
    encode_forget = model.encoder.keywords if train.forget_labels == "keywords" else encode
    tune = partial(fine_tune, job)
    with job.progress.bar("preparing", 2) as bar, reference.swapped_in() if reference else nullcontext():
        sequences = [encode_forget(row) for row in forget_rows]
        forget_setup = Setup(model, forget_rows, sequences, f"{seed}/forget", epochs, trained_on, tune)
        forget_stream = make_stream("forget", method.forget, forget_setup)
        bar.advance()
        sequences = [encode(row) for row in trained_on]
        retain_setup = Setup(model, trained_on, sequences, f"{seed}/retain", epochs, forget_rows, tune)
        retain_stream = make_stream("retain", method.retain, retain_setup)
        if train.takes_steps:
            method.combine.prepare(retain_setup)
        if method.edit is not None:
            method.edit.check(forget_setup, retain_setup)
        bar.advance()
    edit = None if method.edit is None else PlannedEdit(method.edit, forget_setup, retain_setup)
    task = Task(forget_stream, retain_stream, method.combine)
    return Prepared(task, [encode(row) for row in held_out], targets, edit)


def unlearn(job: TrainingJob, prepared: Prepared) -> TrainingResult:
    """Edit and train a model so that it forgets, from the newest intact checkpoint if there is one.

    Args:
        job: the original model, which is changed in place, and the settings.
        prepared: the result of `prepare`.

    Raises:
        UserError: the checkpoint was made with other inputs.
        ExpungeError: as `fit` and `apply_edit`.
    """
    task, model = prepared.task, job.model
    losses = [stream.loss for stream in (task.forget, task.retain) if stream.loss is not None]
    for loss in losses:
        loss.start(model, task.combine.project)
    tensors = {name: tensor for loss in reversed(losses) for name, tensor in loss.tensors().items()}
    warnings = [*(warning for loss in losses for warning in loss.warnings), *task.combine.warnings]
    edited = EditOutcome()
    if prepared.edit is not None:
        edited = apply_edit(replace(job, folder=job.folder / _EDIT), prepared.edit, prepared.held_out)
        warnings += edited.warnings
        if edited.guard.stopped or not job.train.takes_steps:
            model.finish()
            return TrainingResult(edited.steps, edited.checks, edited.guard, 0, 0.0, tensors=tensors, warnings=warnings)
    follower = None
    if job.squeeze is not None:
        follower = follow(job, job.squeeze, prepared.targets, steps_per_epoch(job, task))
    callbacks = [] if follower is None else [follower]
    start = edited.checks[0] if edited.checks else None
    training = fit(job, task, prepared.held_out, callbacks, start)
    return replace(
        training,
        steps=[*edited.steps, *training.steps],
        checks=[*edited.checks[:1], *training.checks],
        squeeze=None if follower is None else follower.result,
        tensors=tensors,
        warnings=[*warnings, *training.warnings],
    )


def _passes(num_rows: int, train: TrainConfig) -> int:
    """Upper bound of the number of passes over the forget rows."""
    if train.steps is None:
        return train.epochs
    return -(-train.steps // max(1, num_rows // (train.batch_size * train.accumulation)))


def make_stream(name: str, loss: Loss, setup: Setup) -> Stream:
    """A stream, with everything that its loss needs of the current model: call it before any weight moves."""
    topics = tuple(row.topic for row in setup.rows)
    if not loss.trains:
        return Stream(name, None, RowSet(setup.sequences), topics)
    loss.prepare(setup)
    rows = row_set(setup.model, setup.sequences, loss.needs, inputs=setup.inputs)
    return Stream(name, loss, rows, topics)
