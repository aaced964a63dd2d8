"""What a diagnostic is, and what it is given to look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.errors import UserError
from expunge.core.progress import SILENT, Progress
from expunge.core.records import DataPrint, Frozen, StepLog
from expunge.core.report_section import ReportSection
from expunge.data.encode import Documents
from expunge.data.example import Example, fingerprint
from expunge.data.generator import named_generator
from expunge.data.splits import Splits
from expunge.data.summary import unused_of
from expunge.evaluate.evidence import sample_rows
from expunge.losses.activations import resolve_layer
from expunge.losses.steering import saved_directions, steered_layer
from expunge.models.base import LanguageModel

Stage = Literal["original", "unlearned"]
Rows = dict[str, list[Example]]
"""Split -> rows."""
Found = TypeVar("Found")


@dataclass
class DiagnosticContext:
    """A model, or the original and the unlearned model of a run; never more than one of them is in memory."""

    loaders: Mapping[Stage, Callable[[], LanguageModel]]
    splits: Splits
    """`forget`, and `retain` where there is one."""
    seed: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """What the run saved beside its weights."""
    steered: int | None = None
    """The layer that the run's forget loss was told to look at."""
    trained: Sequence[str] = ()
    """Names of the parameters that the run could move."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Split -> fingerprint of the rows that the run saw."""
    max_rows: int = 64
    documents: Documents = field(default_factory=Documents)
    steps: Sequence[StepLog] = ()
    """What the run logged while it trained."""
    progress: Progress = SILENT
    data: dict[str, DataPrint] = field(default_factory=dict, init=False)
    machine: tuple[str, str, str] = field(default=("", "", ""), init=False)
    """`LanguageModel.machine` of the model that was loaded last."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The models that there are, the original one first."""
        return tuple(self.loaders)

    def on(self, stage: Stage, look: Callable[[LanguageModel, Rows], Found]) -> Found:
        """Load a model, look at it, and let it go.

        Args:
            stage: which model.
            look: from the model and the rows to what is worth keeping; must not keep the model.

        Raises:
            UserError: the data are not what the run saw, or the model cannot be loaded.
        """
        self.progress.say(f"looking at the {stage} model")
        model = self.loaders[stage]()
        self.machine = model.machine
        pieces = {name: self.documents.rows(model.encoder, some) for name, some in self.splits.named()}
        self.data.update({name: self._print(name, rows) for name, rows in pieces.items()})
        chosen = sample_rows(Splits(pieces["forget"], pieces.get("retain", ())), self.max_rows, self.seed)
        with model.evaluating():
            return look(model, chosen)

    def layer(self, model: LanguageModel, chosen: int | None, where: str) -> int:
        """The block to look at: the chosen one, else where the run steered, else 0.23 of the depth.

        Args:
            model: any model.
            chosen: index from 0, negative: from the end.
            where: names the option in messages.

        Raises:
            UserError: no such block.
        """
        if chosen is None:
            chosen = steered_layer(model, self.steered, bool(self.saved_directions()), self.trained)
        return resolve_layer(model, chosen, where)

    def saved_directions(self) -> dict[str, Tensor]:
        """Topic -> (D,) unit vector that the run steered to; none if it steered to none."""
        return saved_directions(self.tensors)

    def directions(self, width: int) -> dict[str, Tensor]:
        """The same; for a model that was not steered, the one that RMU would draw with this seed."""
        drawn = torch.rand(width, generator=named_generator(f"{self.seed}/direction/"))
        return self.saved_directions() or {"": drawn / drawn.norm()}

    def _print(self, name: str, rows: Sequence[Example]) -> DataPrint:
        found = DataPrint(
            source=self.splits.sources.get(name, "given"),
            rows=len(rows),
            sha256=fingerprint(rows),
            unused=unused_of(self.splits.understood.get(name, ())),
        )
        if self.expected.get(name, found.sha256) != found.sha256:
            raise UserError(
                f"data.{name}: '{found.source}' does not hold the rows that the run saw; name them: --data {name}=..."
            )
        return found


class Diagnostic(ABC):
    """Looks at models and says what it found; one file of `diagnose/` defines one subclass."""

    class Config(Frozen):
        """Options, each explained once here."""

        max_rows: int = Field(64, ge=1, description="Rows of each split that are looked at, a seeded sample of more")

    compares: ClassVar[bool] = False
    """Whether there is nothing to see without the original model beside an unlearned one."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The file's."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Look at every model of the context that is needed.

        Raises:
            UserError: no such layer, or data without what is needed.
        """
