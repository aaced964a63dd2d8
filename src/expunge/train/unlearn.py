"""One training run: streams, reference caches, guard and trainer put together."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState

from expunge.combine.base import Combine
from expunge.core.memory import memory_errors
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Check, GuardOutcome, Squeeze, StepLog
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.generator import named_generator
from expunge.data.matching import DEFAULT, Match
from expunge.edit.base import Edit
from expunge.losses.base import Loss, Setup, TuningConfig
from expunge.models.base import LanguageModel
from expunge.models.batches import free_cached
from expunge.models.forward import RowSet, row_set
from expunge.models.reference_weights import OriginalWeights
from expunge.train.answers import other_wordings, own_answers
from expunge.train.checkpoints import checkpoints, clear_unfinished, newest, remove
from expunge.train.config import GuardConfig, SqueezeConfig, TrainConfig
from expunge.train.editing import Edited, Planned, edited
from expunge.train.guard import Guard, checks_of, steps_of, unseen_bounds
from expunge.train.scaling import LossScaler
from expunge.train.squeeze import follow
from expunge.train.trainer import STAGING, Stream, Task, UnlearnTrainer, batches_of

_EDIT = "edit"
"""Folder beside the checkpoints for what an edit keeps."""


@dataclass(frozen=True)
class Training:
    """What a training run did."""

    steps: list[StepLog]
    checks: list[Check]
    guard: GuardOutcome
    num_steps: int
    num_epochs: float
    squeeze: Squeeze | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """What the losses have to save beside the weights."""
    warnings: list[str] = field(default_factory=list)
    """What the losses and the combination rule have to say."""


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
    """All that training needs of the original model; no weight has moved yet."""

    task: Task
    held_out: list[Encoded]
    """Retain rows that the guard measures."""
    targets: Sequence[Example]
    """Forget rows with the answers that are trained on."""
    match: Match = DEFAULT
    """How keywords are looked for in answers."""
    edit: Planned | None = None
    """What changes the weights before the first step."""


def prepare(
    model: LanguageModel,
    forget_rows: Sequence[Example],
    retain_rows: Sequence[Example],
    forget: Loss,
    retain: Loss,
    combine: Combine,
    train: TrainConfig,
    guard: GuardConfig,
    seed: int,
    progress: Progress = SILENT,
    reference: OriginalWeights | None = None,
    match: Match = DEFAULT,
    edit: Edit | None = None,
    tune: Callable[[Setup, TuningConfig], OriginalWeights] | None = None,
) -> Prepared:
    """Let losses and combination rule look at the original model; whatever they refuse, they refuse here.

    Args:
        model: the original model with its trainable weights chosen; it is only read.
        forget_rows: what to forget.
        retain_rows: what to keep; a share is held out for the guard.
        forget: loss on forget rows.
        retain: loss on retain rows.
        combine: how the two become one gradient.
        train: length and strength.
        guard: when to stop early.
        seed: of everything random.
        progress: where to report.
        reference: weights of another model that the losses compare with; None: of the model as it is.
        match: how keywords are looked for in answers.
        edit: what changes the weights before the first step; None: nothing.
        tune: fine-tunes on the rows of a stream, for what compares the model with the result.

    Raises:
        UserError: rows, layers or weights that a loss, the edit or the combination rule cannot use.
    """
    trained_on, held_out = hold_out(retain_rows, guard.holdout, seed)
    targets = forget_rows
    if train.answers == "own":
        targets = own_answers(model, forget_rows, progress, unproven=False, match=match)
        forget_rows = [*targets, *other_wordings(model, targets, train.wordings, f"{seed}/wordings", progress, match)]
        trained_on = own_answers(model, trained_on, progress, match=match)
    encode, epochs = model.encoder.example, _passes(len(forget_rows), train)
    encode_forget = model.encoder.keywords if train.forget_labels == "keywords" else encode
    with progress.bar("preparing", 2) as bar, reference.swapped_in() if reference else nullcontext():
        sequences = [encode_forget(row) for row in forget_rows]
        forget_setup = Setup(model, forget_rows, sequences, f"{seed}/forget", epochs, trained_on, tune)
        forget_stream = make_stream("forget", forget, forget_setup)
        bar.advance()
        sequences = [encode(row) for row in trained_on]
        retain_setup = Setup(model, trained_on, sequences, f"{seed}/retain", epochs, forget_rows, tune)
        retain_stream = make_stream("retain", retain, retain_setup)
        if train.takes_steps:
            combine.prepare(retain_setup)
        if edit is not None:
            edit.check(forget_setup, retain_setup)
        bar.advance()
    plan = None if edit is None else Planned(edit, forget_setup, retain_setup)
    task = Task(forget_stream, retain_stream, combine)
    return Prepared(task, [encode(row) for row in held_out], targets, match, plan)


def unlearn(
    model: LanguageModel,
    prepared: Prepared,
    train: TrainConfig,
    guard: GuardConfig,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    squeeze: SqueezeConfig | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Training:
    """Train a model to forget, from the newest intact checkpoint in `folder` if there is one.

    Args:
        model: the original model with its trainable weights chosen; changed in place.
        prepared: what `prepare` made of it.
        train: length and strength.
        guard: when to stop early.
        seed: of everything random.
        folder: for checkpoints.
        progress: where to report.
        squeeze: how to follow other wordings of the forget answers during training; None: not at all.
        inputs: hashes of what training starts from; a checkpoint of another start is refused.
    """
    task = prepared.task
    losses = [stream.loss for stream in (task.forget, task.retain) if stream.loss is not None]
    for loss in losses:
        loss.start(model, task.combine.project)
    tensors = {name: tensor for loss in reversed(losses) for name, tensor in loss.tensors().items()}
    warnings = [*(warning for loss in losses for warning in loss.warnings), *task.combine.warnings]
    first = Edited()
    if prepared.edit is not None:
        first = edited(prepared.edit, prepared.held_out, guard, seed, folder / _EDIT, progress)
        warnings += first.warnings
        if first.guard.stopped or not train.takes_steps:
            model.finish()
            return Training(first.steps, first.checks, first.guard, 0, 0.0, tensors=tensors, warnings=warnings)
    follower = None
    if squeeze is not None:
        follower = follow(
            model, prepared.targets, squeeze, _steps_per_epoch(task, train, seed), seed, progress, prepared.match
        )
    callbacks = [] if follower is None else [follower]
    start = first.checks[0] if first.checks else None
    training = fit(model, task, prepared.held_out, train, guard, seed, folder, progress, callbacks, inputs, start)
    return replace(
        training,
        steps=[*first.steps, *training.steps],
        checks=[*first.checks[:1], *training.checks],
        squeeze=None if follower is None else follower.result,
        tensors=tensors,
        warnings=[*warnings, *training.warnings],
    )


def fit(
    model: LanguageModel,
    task: Task,
    held_out: list[Encoded],
    train: TrainConfig,
    guard: GuardConfig,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    callbacks: Sequence[TrainerCallback] = (),
    inputs: Mapping[str, str] | None = None,
    start: Check | None = None,
) -> Training:
    """Run the trainer on a task, from the newest intact checkpoint in `folder` if there is one, to what will be saved.

    Further callbacks see a step before the guard does, which may put other weights in its place. `start` is the guard's
    look at the original model, where that is not where training starts.

    Raises:
        UserError: the checkpoint was made with other inputs.
        ExpungeError: training diverged, and nothing was kept that could be gone back to.
    """
    state, scaler, watch = take_steps(
        model, task, held_out, train, guard, seed, folder, progress, callbacks, inputs, start
    )
    model.network.eval()
    model.settle()  # first, since rounding to float16 can overflow
    watch.check_end(state)
    model.finish()
    steps = steps_of(state)
    diverged = [step.step for step in steps if not all(map(math.isfinite, step.values.values()))]
    warnings = unseen_bounds(guard, steps)
    if diverged:
        warnings.append(
            f"Training diverged: values of {len(diverged)} of {len(steps)} steps are not finite numbers, for the first "
            f"time at step {diverged[0]}. Try a lower train.lr."
        )
    if scaler is not None and scaler.skipped:
        warnings.append(
            f"{scaler.skipped} of {state.global_step} steps were left out because their gradients "
            'overflowed float16; more steps make up for them, or model.precision = "float32".'
        )
    return Training(
        steps,
        checks_of(state),
        watch.outcome,
        state.global_step,
        float(state.epoch or 0),
        warnings=warnings,
    )


def take_steps(
    model: LanguageModel,
    task: Task,
    held_out: list[Encoded],
    train: TrainConfig,
    guard: GuardConfig,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    callbacks: Sequence[TrainerCallback] = (),
    inputs: Mapping[str, str] | None = None,
    start: Check | None = None,
) -> tuple[TrainerState, LossScaler | None, Guard]:
    """As `fit`, and leave the weights as the last step left them, in the precision of the training."""
    steps_per_epoch = _steps_per_epoch(task, train, seed)
    clear_unfinished(folder, STAGING)
    checkpoint = newest(folder, inputs or {}, progress)
    config = model.base.config
    use_cache = getattr(config, "use_cache", None)
    with progress.bar("training", train.steps or steps_per_epoch * train.epochs) as bar:
        watch = Guard(model, task.forget.rows.sequences, held_out, guard, folder, steps_per_epoch, seed, bar, start)
        if checkpoint is not None and not watch.can_go_back():
            progress.say("the weights that the guard kept are damaged or missing; going on from the start")
            for old in checkpoints(folder):
                remove(old)
            checkpoint = None
        trainer = UnlearnTrainer(model, task, train, seed, folder, [*callbacks, watch], inputs)
        watch.trainer = weakref.proxy(trainer)
        try:
            on_device = torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext()
            with memory_errors(_too_large(model, train)), on_device:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            state, scaler = trainer.state, trainer.scaler
        finally:
            trainer.release()
            free_cached(model.device)
    config.use_cache = use_cache  # transformers' trainer turns it off
    return state, scaler, watch


def _too_large(model: LanguageModel, train: TrainConfig) -> str:
    """What to change when a step does not fit into memory."""
    ways = []
    if train.batch_size > 1:
        ways.append(f"a smaller train.batch_size (now {train.batch_size}; train.accumulation makes up for it)")
    if not train.gradient_checkpointing:
        ways.append("train.gradient_checkpointing = true")
    if not model.is_adapted:
        ways.append('model.adapter = "lora", or fewer weights by localize')
    if model.precision == "float32":
        ways.append('model.precision = "bfloat16" where the device has it')
    return (
        f"training ran out of memory on {model.device}; try {'; '.join(ways) or 'a smaller model or shorter texts'}. "
        "Checkpoints stay as they are"
    )


def _steps_per_epoch(task: Task, train: TrainConfig, seed: int) -> int:
    """Optimizer steps."""
    return -(-len(batches_of(task, train, seed)) // train.accumulation)


def _passes(num_rows: int, train: TrainConfig) -> int:
    """At most how often the forget rows are passed over."""
    if train.steps is None:
        return train.epochs
    return -(-train.steps // max(1, num_rows // (train.batch_size * train.accumulation)))


def make_stream(name: str, loss: Loss, setup: Setup) -> Stream:
    """A stream with what its loss needs of the model as it is now: call before any weight moves."""
    topics = tuple(row.topic for row in setup.rows)
    if not loss.trains:
        return Stream(name, None, RowSet(setup.sequences), topics)
    loss.prepare(setup)
    rows = row_set(setup.model, setup.sequences, loss.needs, inputs=setup.inputs)
    return Stream(name, loss, rows, topics)
