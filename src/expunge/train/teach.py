"""Fine-tuning: to make a model that knows given rows, or weights that a method compares the model with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from expunge.combine.base import Combine, Step, StepLosses
from expunge.core.errors import ExpungeError
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Frozen
from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.losses.base import Loss, Setup, TuningConfig, View
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.forward import RowSet
from expunge.models.reference_weights import OriginalWeights
from expunge.numerics.token import reduce_tokens
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.fit import TrainingResult, fit, take_steps
from expunge.train.job import NOTHING, Stream, Task, TrainingJob

_NO_GUARD = GuardConfig(utility_floor=0.0, rows=4)


class TeachData(Frozen):
    """Data to learn."""

    teach: tuple[DataSpec, ...] = Field(min_length=1, description="Data sets to learn, e.g. fictional:all")
    chunk_tokens: int = Field(256, ge=8, description="Documents are cut into even pieces of about this many tokens")


class Teach(Frozen):
    """One teaching run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Feeds every random choice")
    model: ModelConfig
    data: TeachData
    train: TrainConfig = Field(default_factory=TrainConfig, description="Length and strength")


class TeachRecord(Frozen):
    """The record of a teaching run; its presence means that the folder is complete."""

    config: dict[str, Any]
    content: str = Field(description="Hash of configuration, data and original weights")
    rows: int
    num_steps: int
    final_loss: float
    seconds: float


class Alone(Combine):
    """A single stream."""

    def accumulate(self, step: Step) -> StepLosses:
        """Backpropagate the first stream."""
        loss = step.forget()
        step.backward(loss)
        return StepLosses(forget=loss.detach(), retain=None)


class Likelihood(Loss):
    """Mean negative log-probability of a row's labels."""

    def loss(self, view: View) -> Tensor:
        """Mean over a row's tokens, then over rows."""
        return -reduce_tokens(view.token_logp(), view.batch.rows, view.batch.num_rows, "seq_mean")


def teach(
    model: LanguageModel,
    rows: Sequence[Example],
    loss: Loss,
    train: TrainConfig,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    inputs: Mapping[str, str] | None = None,
) -> TrainingResult:
    """Fine-tune on rows, from the last whole checkpoint in `folder` if there is one.

    Args:
        model: changed in place; its trainable weights are already chosen.
        rows: the rows to learn.
        loss: minimised on them, e.g. the retain NLL.
        train: length and strength.
        seed: of everything random.
        folder: for checkpoints.
        progress: where to report.
        inputs: hashes of everything that training starts from; a checkpoint made from other inputs is refused.
    """
    job = TrainingJob(model, train, _NO_GUARD, seed, folder, progress, inputs or {})
    stream = Stream("teach", loss, RowSet([model.encoder.example(row) for row in rows]))
    return fit(job, Task(stream, NOTHING, Alone(None)))


def fine_tune(job: TrainingJob, setup: Setup, config: TuningConfig) -> OriginalWeights:
    """Train the model on the answers of a stream's rows, and restore its weights; a second call uses the checkpoints.

    Args:
        job: whose seed, folder, progress and inputs are used; checkpoints go to `tuned` below its folder.
        setup: the model, its trainable weights chosen, and the rows.
        config: length and strength.

    Returns:
        The weights after fine-tuning.

    Raises:
        ExpungeError: they are not finite.
    """
    weights = OriginalWeights(setup.model)
    stream = Stream("tuning", Likelihood(None), RowSet(setup.sequences, inputs=setup.inputs))
    train = TrainConfig(
        lr=config.tuning_lr,
        epochs=config.tuning_epochs,
        batch_size=config.tuning_batch_size,
        schedule=config.tuning_schedule,
        checkpoints=job.train.checkpoints,
    )
    folder = job.folder / "tuned"
    folder.mkdir(parents=True, exist_ok=True)
    own = replace(job, model=setup.model, train=train, guard=_NO_GUARD, folder=folder)
    try:
        state, _, _ = take_steps(own, Task(stream, NOTHING, Alone(None)))
    except ExpungeError as error:
        hint = str(error)
        for theirs, ours in (("train.lr", "tuning_lr"), ("train.batch_size", "tuning_batch_size")):
            hint = hint.replace(theirs, ours)
        raise type(error)(f"fine-tuning on the forget rows: {hint}") from None
    weights.swap()
    if not all(bool(torch.isfinite(values).all()) for values in weights.others):
        raise ExpungeError(
            f"fine-tuning on the forget rows diverged within {state.global_step} steps; try a lower tuning_lr"
        )
    return weights
