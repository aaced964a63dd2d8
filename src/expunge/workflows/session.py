"""The state of a run: everything that its stages have made so far, and the record that comes of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from expunge.attacks.base import Attack
from expunge.config import Run
from expunge.core.attack_record import Robustness
from expunge.core.progress import Progress
from expunge.core.provenance import peak_memory_mb
from expunge.core.records import (
    DataPrint,
    ModelPrint,
    Provenance,
    Record,
    SelectionPrint,
)
from expunge.data.splits import Splits
from expunge.evaluate.answer_kinds import Labeller, count_kinds
from expunge.evaluate.base import Metric
from expunge.evaluate.changes import changes
from expunge.evaluate.measure import Measured, measure
from expunge.evaluate.sets import sets_of
from expunge.evaluate.validity import doubts
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel
from expunge.models.reference_weights import OriginalWeights
from expunge.train.fit import TrainingResult
from expunge.train.job import Method, TrainingJob
from expunge.train.unlearn import Prepared


class Stopwatch:
    """Wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def total(self) -> dict[str, float]:
        """All stages, and the whole."""
        return {**self.seconds, "total": round(time.perf_counter() - self._start, 3)}


@dataclass
class Session:
    """A run in progress: the stages of `workflows.run` read what earlier ones have set, and add their own."""

    run: Run
    out: Path
    command: str
    progress: Progress
    is_loaded: bool
    """Whether the caller brought the model: no name leads to its original weights again."""
    watch: Stopwatch = field(default_factory=lambda: Stopwatch())

    metrics: dict[str, Metric] = field(init=False)
    labeller: Labeller = field(init=False)
    attacks: list[Attack] = field(init=False)
    localizer: Localizer = field(init=False)
    method: Method = field(init=False)

    splits: Splits = field(init=False)
    model: LanguageModel = field(init=False)
    warnings: list[str] = field(init=False)

    selection: Selection = field(init=False)
    num_trained: int = field(init=False)
    reference: OriginalWeights | None = field(init=False)
    model_print: ModelPrint = field(init=False)
    job: TrainingJob = field(init=False)
    prepared: Prepared = field(init=False)

    before: Measured = field(init=False)
    training: TrainingResult = field(init=False)
    after: Measured = field(init=False)
    data: dict[str, DataPrint] = field(init=False)
    provenance: Provenance = field(init=False)
    robustness: Robustness | None = None
    record: Record = field(init=False)

    def measure(self, label: str, **options: Any) -> Measured:
        """Measure the model as it is now, with the metrics of the run."""
        run = self.run
        rows = self.model, self.splits, self.metrics, self.labeller, run.evaluate, run.seed, self.progress
        return measure(*rows, label, **options)

    def make_record(self) -> Record:
        """The record of the run, when every stage but saving is over."""
        run, before, after, training = self.run, self.before, self.after, self.training
        return Record(
            recipe=run.recipe,
            config=run.tables(),
            provenance=self.provenance,
            model=self.model_print,
            data=self.data,
            selection=SelectionPrint(
                localizer=run.localize.name,
                num_parameters=self.num_trained,
                names=list(self.selection.names),
                evidence=self.selection.evidence,
                curves=list(self.selection.curves),
            ),
            before=before.scores,
            after=after.scores,
            aggregates_before=before.aggregates,
            aggregates_after=after.aggregates,
            kinds={"before": count_kinds(before.kinds), "after": count_kinds(after.kinds)},
            steps=training.steps,
            checks=training.checks,
            guard=training.guard,
            squeeze=training.squeeze,
            robustness=self.robustness,
            seconds=self.watch.total(),
            peak_memory_mb=_peak_memory_mb(self.model),
            num_steps=training.num_steps,
            num_epochs=training.num_epochs,
            changes=changes(before.values, after.values, run.seed, after.units),
            warnings=self.warnings,
            doubts=doubts(sets_of(self.splits, run.evaluate), before),
        )


def print_model(model: LanguageModel, adapter: str) -> ModelPrint:
    """What a model is before it is trained; hashing its weights takes a while."""
    return ModelPrint(
        source=model.source,
        sha256=model.fingerprint(),
        architecture=type(model.base).__name__,
        num_parameters=sum(
            parameter.numel() for name, parameter in model.base.named_parameters() if "lora_" not in name
        ),
        num_layers=len(model.blocks()),
        template=model.encoder.template,
        adapter=adapter,
    )


def _peak_memory_mb(model: LanguageModel) -> float:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 1e6
    return peak_memory_mb()
