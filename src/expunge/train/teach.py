"""Teaching: fine-tune a model on given rows, to build a target that knows them or a reference that does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from expunge.combine.base import Combine, Step, StepLosses
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Frozen
from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.losses.base import Loss
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.forward import RowSet
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.trainer import NOTHING, Stream, Task
from expunge.train.unlearn import Training, fit

_NO_GUARD = GuardConfig(utility_floor=0.0, rows=4)


class TeachData(Frozen):
    """What to teach."""

    teach: tuple[DataSpec, ...] = Field(min_length=1, description="Data sets to learn, e.g. fictional:all")
    chunk_tokens: int = Field(256, ge=8, description="Documents are cut into even pieces of about this many tokens")


class Teach(Frozen):
    """One teaching run."""

    seed: int = Field(0, ge=0, lt=2**32, description="Feeds every random choice")
    model: ModelConfig
    data: TeachData
    train: TrainConfig = Field(default_factory=TrainConfig, description="Length and strength")


class TeachRecord(Frozen):
    """What a teaching run did; its presence means that the folder is complete."""

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


def teach(
    model: LanguageModel,
    rows: Sequence[Example],
    loss: Loss,
    train: TrainConfig,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    inputs: Mapping[str, str] | None = None,
) -> Training:
    """Fine-tune on rows, from the last whole checkpoint in `folder` if there is one.

    Args:
        model: changed in place; its trainable weights are already chosen.
        rows: what to learn.
        loss: what to minimise on them, e.g. the retain NLL.
        train: length and strength.
        seed: of everything random.
        folder: for checkpoints.
        progress: where to report.
        inputs: hashes of what training starts from; a checkpoint of another start is refused.
    """
    stream = Stream("teach", loss, RowSet([model.encoder.example(row) for row in rows]))
    task = Task(stream, NOTHING, Alone(None))
    return fit(model, task, [], train, _NO_GUARD, seed, folder, progress, inputs=inputs)
