"""One training run: the settings that its stages share, and the task that it minimises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from expunge.combine.base import Combine
from expunge.core.progress import SILENT, Progress
from expunge.data.matching import DEFAULT, Match
from expunge.edit.base import Edit
from expunge.losses.base import Loss, TuningConfig
from expunge.models.base import LanguageModel
from expunge.models.forward import RowSet
from expunge.train.config import GuardConfig, SqueezeConfig, TrainConfig


@dataclass(frozen=True)
class TrainingJob:
    """Model, options and surroundings of one training run."""

    model: LanguageModel
    """With its trainable weights chosen; changed in place."""
    train: TrainConfig
    guard: GuardConfig
    seed: int
    """Feeds every random choice."""
    folder: Path
    """For checkpoints, and the weights that the guard keeps."""
    progress: Progress = SILENT
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Hashes of everything that training starts from; a checkpoint made from other inputs is refused."""
    match: Match = DEFAULT
    """How keywords are matched in answers."""
    squeeze: SqueezeConfig | None = None
    """The squeezing diagnostic, if it is on."""


@dataclass(frozen=True)
class Method:
    """The plug-ins of an unlearning method."""

    forget: Loss
    retain: Loss
    combine: Combine
    edit: Edit | None = None
    """Changes the weights before the first step."""

    @property
    def tunes(self) -> bool:
        """Whether a part of it fine-tunes the model, to compare with the result."""
        return any(
            isinstance(part.config, TuningConfig) for part in (self.forget, self.retain, self.edit) if part is not None
        )


@dataclass(frozen=True)
class Stream:
    """One of the two losses with its rows."""

    name: str
    """forget, retain or teach: its loss is logged as `NAME_loss`."""
    loss: Loss | None
    rows: RowSet
    topics: tuple[str | None, ...] = ()
    """Topic of each row."""


NOTHING = Stream("nothing", None, RowSet([]))
"""The second stream of a task that has only one."""


@dataclass(frozen=True)
class Task:
    """Two streams, and how their losses become one gradient."""

    forget: Stream
    retain: Stream
    combine: Combine
