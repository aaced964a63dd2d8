"""Run the trainer on a task, from the newest intact checkpoint, under the guard."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerState

from expunge.core.memory import memory_errors
from expunge.core.records import Check, GuardOutcome, StepLog
from expunge.core.squeeze_record import Squeeze
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.batches import free_cached
from expunge.train.checkpoints import checkpoints, clear_unfinished, newest, remove
from expunge.train.config import TrainConfig
from expunge.train.guard import Guard, checks_of, steps_of, unseen_bounds
from expunge.train.job import Task, TrainingJob
from expunge.train.scaling import LossScaler
from expunge.train.trainer import STAGING, UnlearnTrainer, steps_per_epoch


@dataclass(frozen=True)
class TrainingResult:
    """Log and outcome of a training run."""

    steps: list[StepLog]
    checks: list[Check]
    guard: GuardOutcome
    num_steps: int
    num_epochs: float
    squeeze: Squeeze | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that the losses save beside the weights."""
    warnings: list[str] = field(default_factory=list)
    """Of the losses, the combination rule, the edit and the training itself."""


def fit(
    job: TrainingJob,
    task: Task,
    held_out: Sequence[Encoded] = (),
    callbacks: Sequence[TrainerCallback] = (),
    start: Check | None = None,
) -> TrainingResult:
    """Train on a task, and leave the weights as they will be saved.

    Args:
        job: the model, which is changed in place, and the settings.
        task: losses, rows and combination rule.
        held_out: encoded retain rows that the guard measures.
        callbacks: called after each step before the guard, which may restore earlier weights.
        start: the guard's check of the original model, if training starts from edited weights.

    Raises:
        UserError: the checkpoint was made with other inputs.
        ExpungeError: training diverged, and there are no earlier weights to restore.
    """
    model = job.model
    state, scaler, guard = take_steps(job, task, held_out, callbacks, start)
    model.network.eval()
    model.settle()  # first, since rounding to float16 can overflow
    guard.check_end(state)
    model.finish()
    steps = steps_of(state)
    diverged = [step.step for step in steps if not all(map(math.isfinite, step.values.values()))]
    warnings = unseen_bounds(job.guard, steps)
    if diverged:
        warnings.append(
            f"Training diverged: {len(diverged)} of {len(steps)} steps logged values that are not finite, the first "
            f"at step {diverged[0]}. Try a lower train.lr."
        )
    if scaler is not None and scaler.skipped:
        warnings.append(
            f"{scaler.skipped} of {state.global_step} steps were skipped because their gradients overflowed float16; "
            'compensate with more steps, or set model.precision = "float32".'
        )
    return TrainingResult(
        steps,
        checks_of(state),
        guard.outcome,
        state.global_step,
        float(state.epoch or 0),
        warnings=warnings,
    )


def take_steps(
    job: TrainingJob,
    task: Task,
    held_out: Sequence[Encoded] = (),
    callbacks: Sequence[TrainerCallback] = (),
    start: Check | None = None,
) -> tuple[TrainerState, LossScaler | None, Guard]:
    """As `fit`, but leave the weights as the last step left them, in the precision of the training."""
    model, train = job.model, job.train
    per_epoch = steps_per_epoch(job, task)
    clear_unfinished(job.folder, STAGING)
    checkpoint = newest(job.folder, job.inputs, job.progress)
    config = model.base.config
    use_cache = getattr(config, "use_cache", None)
    with job.progress.bar("training", train.steps or per_epoch * train.epochs) as bar:
        guard = Guard(job, task.forget.rows.sequences, held_out, per_epoch, bar, start)
        if checkpoint is not None and not guard.can_go_back():
            job.progress.say("the weights that the guard kept are damaged or missing; training starts over")
            for old in checkpoints(job.folder):
                remove(old)
            checkpoint = None
        trainer = UnlearnTrainer(job, task, [*callbacks, guard])
        guard.trainer = weakref.proxy(trainer)
        try:
            on_device = torch.cuda.device(model.device) if model.device.type == "cuda" else nullcontext()
            with memory_errors(_too_large(model, train)), on_device:
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            state, scaler = trainer.state, trainer.scaler
        finally:
            trainer.release()
            free_cached(model.device)
    config.use_cache = use_cache  # transformers' trainer turns it off
    return state, scaler, guard


def _too_large(model: LanguageModel, train: TrainConfig) -> str:
    """The message when a step does not fit into memory, with options to change."""
    ways = []
    if train.batch_size > 1:
        ways.append(f"a smaller train.batch_size (now {train.batch_size}; train.accumulation makes up for it)")
    if not train.gradient_checkpointing:
        ways.append("train.gradient_checkpointing = true")
    if not model.is_adapted:
        ways.append('model.adapter = "lora", or fewer weights by localize')
    if model.precision == "float32":
        ways.append('model.precision = "bfloat16" if the device supports it')
    return (
        f"training ran out of memory on {model.device}; try {'; '.join(ways) or 'a smaller model or shorter texts'}. "
        "Checkpoints stay as they are"
    )
