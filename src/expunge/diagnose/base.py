"""The contract of a diagnostic, and the context in which it runs."""

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
from expunge.losses.steering import chosen_layer, saved_directions
from expunge.models.base import LanguageModel

Stage = Literal["original", "unlearned"]
Rows = dict[str, list[Example]]
"""Split -> rows."""
Measured = TypeVar("Measured")


@dataclass
class DiagnosticContext:
    """A model, or the original and the unlearned model of a run, of which at most one is in memory at a time."""

    loaders: Mapping[Stage, Callable[[], LanguageModel]]
    splits: Splits
    """`forget` and, if present, `retain`."""
    seed: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the run saved beside its weights."""
    steered: int | None = None
    """Layer that the run's forget loss was configured for."""
    trained: Sequence[str] = ()
    """Names of the parameters that the run trained."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Split -> fingerprint of the rows of the run."""
    max_rows: int = 64
    documents: Documents = field(default_factory=Documents)
    steps: Sequence[StepLog] = ()
    """The run's training log."""
    progress: Progress = SILENT
    data: dict[str, DataPrint] = field(default_factory=dict, init=False)
    machine: tuple[str, str, str] = field(default=("", "", ""), init=False)
    """`LanguageModel.machine` of the model that was loaded last."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The available models, the original first."""
        return tuple(self.loaders)

    def on(self, stage: Stage, measure: Callable[[LanguageModel, Rows], Measured]) -> Measured:
        """Load a model, measure it, and free it.

        Args:
            stage: which model.
            measure: from the model and the rows to a result, which must not hold the model.

        Raises:
            UserError: the data differ from those of the run, or the model cannot be loaded.
        """
        self.progress.say(f"measuring the {stage} model")
        model = self.loaders[stage]()
        self.machine = model.machine
        pieces = {name: self.documents.rows(model.encoder, some) for name, some in self.splits.named()}
        self.data.update({name: self._print(name, rows) for name, rows in pieces.items()})
        sample = sample_rows(Splits(pieces["forget"], pieces.get("retain", ())), self.max_rows, self.seed)
        with model.evaluating():
            return measure(model, sample)

    def layer(self, model: LanguageModel, chosen: int | None, diagnostic: str) -> int:
        """The block to measure, see `chosen_layer`.

        Args:
            model: any model.
            chosen: index, negative from the end. Default: where the run steered.
            diagnostic: name of the diagnostic, for messages.

        Raises:
            UserError: no such block.
        """
        return chosen_layer(model, chosen, f"{diagnostic}.layer", self.steered, self.tensors, self.trained)

    def saved_directions(self) -> dict[str, Tensor]:
        """Topic -> (D,) unit vector that the run steered to; empty if it steered to none."""
        return saved_directions(self.tensors)

    def directions(self, width: int) -> dict[str, Tensor]:
        """The saved directions or, if there are none, the one that RMU would draw with this seed."""
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
                f"data.{name}: '{found.source}' does not hold the rows of the run; pass them with --data {name}=..."
            )
        return found


class Diagnostic(ABC):
    """Measures models and reports the result; one file of `diagnose/` defines one subclass."""

    class Config(Frozen):
        """Options, each explained once here."""

        max_rows: int = Field(64, ge=1, description="Maximum number of rows per split, a seeded sample")

    compares: ClassVar[bool] = False
    """Whether it needs both the original and an unlearned model."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def name(self) -> str:
        """The name of its file."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Measure the models of the context.

        Raises:
            UserError: no such layer, or unsuitable data.
        """
