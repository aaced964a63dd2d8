"""The typed records that stages hand to each other and to disk.

Everything after a run (terminal table, report, model card, comparison) reads these and nothing else.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator

from expunge.core.attack_record import Robustness
from expunge.core.errors import UserError
from expunge.core.permission import note
from expunge.core.schema import Better as Better
from expunge.core.schema import Frozen as Frozen
from expunge.core.schema import Score as Score
from expunge.core.squeeze_record import Squeeze

SCHEMA_VERSION: Literal[1] = 1
RUN_FILE = "run.toml"
RECORD_FILE = "record.json"
REPORT_FILE = "report.html"
MODEL_FOLDER = "model"
ITEMS_FILE = "items.parquet"
SEQUENCE_FILE = "sequence.json"
EVALUATION_FILE = "evaluation.json"
ATTACKS_FILE = "attacks.json"

Scores = dict[str, dict[str, Score]]
"""Split name -> metric name -> score."""

KEYWORD_METRICS = ("keyword_recall", "sample_leak", "paraphrase_keyword_recall")
"""Metrics of asking for the keyword; the first asks directly."""
REASONING_METRIC = "reasoning_leak"
"""Leakage by a reasoning trace before the answer, if the model writes one."""

FEWEST_QUESTIONS = 12
"""With fewer, no leak at all still leaves an upper bound of 3/n above a quarter (rule of three)."""


class Change(Frozen):
    """A score after a run minus the same score before it, over the rows that have a value at both stages."""

    difference: float
    low: float = Field(description="Lower end of the 95% bootstrap interval over rows, both stages together")
    high: float = Field(description="Upper end of the same")
    n: int = Field(description="Rows")

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low <= 0 <= self.high


Changes = dict[str, dict[str, Change]]
"""Split name -> metric name -> change."""


class Component(Frozen):
    """One number that enters an aggregate, in [0, 1]."""

    split: str
    name: str = Field(description="Metric name; `1 - name` where its complement enters")
    value: float | None
    reason: str | None = Field(None, description="Why the value is absent")


class Aggregate(Frozen):
    """Several scores as one number. Its name encodes its components: two of different names are never compared."""

    value: float | None
    low: float | None = Field(None, description="Lower end of the 95% bootstrap interval over rows within each split")
    high: float | None = Field(None, description="Upper end of the same interval")
    better: Better = "higher"
    components: list[Component]
    zeroed_by: list[str] = Field(
        default_factory=list, description="Components, as `split/name`, that alone make a harmonic mean 0"
    )
    reason: str | None = Field(None, description="Why the value is absent")


Aggregates = dict[str, Aggregate]
"""Name, e.g. `fe5` -> aggregate."""


Kind = Literal["leak", "correct", "refusal", "hallucination", "wrong", "gibberish"]
"""Kinds of answers: leak and hallucination on the forget split, correct and wrong on all others."""
FORGET_KINDS: tuple[Kind, ...] = ("leak", "refusal", "hallucination", "gibberish")
OTHER_KINDS: tuple[Kind, ...] = ("correct", "refusal", "wrong", "gibberish")
"""The same places as in `FORGET_KINDS`."""
KindCounts = dict[str, dict[Kind, int]]
"""Split name -> kind of answer -> rows."""


class DataPrint(Frozen):
    """Origin and hash of one data set."""

    source: str = Field(description="Name, path or hub id as the user gave it")
    rows: int
    sha256: str = Field(description="Hash of the normalised rows, in order")
    truncated: int = Field(0, description="Rows cut to the model's context")
    unused: list[str] = Field(default_factory=list, description="Columns that were not read")


class ModelPrint(Frozen):
    """Origin and hash of the model before the run."""

    source: str = Field(description="Name, path or hub id as the user gave it")
    sha256: str = Field(description="Hash of the original weights by name, shape and value")
    architecture: str = Field(description="Class of the transformers model")
    num_parameters: int
    num_layers: int
    template: str = Field(description="How question and answer are laid out: chat or plain")
    adapter: str = Field("none", description="none, or the peft adapter that was trained")


class LayerCurve(Frozen):
    """One value for each block, first to last."""

    name: str = Field(description="Label in a figure")
    values: list[float]
    low: list[float] = Field(default_factory=list, description="95% interval, if there is one")
    high: list[float] = Field(default_factory=list)


class SelectionPrint(Frozen):
    """Which weights were allowed to move, and why."""

    localizer: str
    num_parameters: int = Field(description="Trainable weights")
    names: list[str] = Field(description="Names of the selected parameters")
    evidence: dict[str, Any] = Field(default_factory=dict, description="Measurements behind the choice")
    curves: list[LayerCurve] = Field(default_factory=list, description="The same for every block")


class StepLog(Frozen):
    """The logged values of one optimizer step."""

    step: int
    epoch: float
    values: dict[str, float] = Field(
        description="forget_loss, retain_loss, grad_norm, learning_rate and fillers' own; not finite where it diverged"
    )

    @field_validator("values", mode="before")
    @classmethod
    def _diverged(cls, values: Any) -> Any:
        """Version 0.1 wrote null for a value that was not finite."""
        if not isinstance(values, dict):
            return values
        return {name: math.nan if value is None else value for name, value in values.items()}


class Check(Frozen):
    """A cheap teacher-forced measurement during training."""

    step: int
    epoch: float
    forget: float = Field(description="Mean answer probability on a sample of forget rows")
    utility: float = Field(description="The same on held-out retain rows that are never trained on")


class GuardOutcome(Frozen):
    """Outcome of the guard."""

    utility_floor: float | None = Field(description="Smallest allowed utility, as a share of the utility before")
    stopped: bool = Field(False, description="Training ended before its last epoch")
    restored_step: int | None = Field(None, description="The step whose weights were kept, when they are not the last")
    message: str = Field("", description="One sentence for the report; empty when the guard had nothing to do")


Kept = TypeVar("Kept", bound=Frozen)


class Provenance(Frozen):
    """Everything else that is needed to repeat a run."""

    command: str
    created: str = Field(description="UTC time, ISO 8601")
    expunge: str = Field(description="Version of this package")
    commit: str | None = Field(None, description="Commit of the source tree, if it is one")
    dirty: bool | None = Field(None, description="Whether that tree had uncommitted changes")
    python: str
    platform: str
    device: str
    precision: str = Field(description="Of matrix products: float32, or autocast to bfloat16 or float16")
    caching: str | None = Field(
        None, description="Whether answers were computed with a cache, and whether prompts shared their start in it"
    )
    packages: dict[str, str] = Field(default_factory=dict)


class Record(Frozen):
    """One run, whole."""

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: str
    config: dict[str, Any] = Field(description="The resolved configuration; feeding it back repeats the run")
    provenance: Provenance
    model: ModelPrint
    data: dict[str, DataPrint]
    selection: SelectionPrint
    before: Scores
    after: Scores
    aggregates_before: Aggregates = Field(default_factory=dict)
    aggregates_after: Aggregates = Field(default_factory=dict)
    kinds: dict[str, KindCounts] = Field(
        default_factory=dict, description="Stage (before, after) -> split -> kind of the greedy answer -> rows"
    )
    steps: list[StepLog] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    guard: GuardOutcome
    squeeze: Squeeze | None = Field(None, description="The squeezing diagnostic, if it was on")
    robustness: Robustness | None = Field(None, description="Results of attacks, if any were run")
    seconds: dict[str, float] = Field(
        description="Wall time by stage: load, localize, prepare, before, train, after, save, total"
    )
    peak_memory_mb: float = Field(
        description="Largest resident set of the process, or device memory where there is one"
    )
    num_steps: int
    num_epochs: float
    changes: Changes = Field(default_factory=dict, description="After less before, row by row")
    warnings: list[str] = Field(default_factory=list, description="Caveats that apply to the scores")
    doubts: list[str] = Field(
        default_factory=list, description="Reasons why missing answers after the run would not show forgetting; clauses"
    )


class Evaluation(Frozen):
    """Measurement of one model."""

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str = Field(description="Name, path or hub id as the user gave it")
    sha256: str | None = Field(None, description="Hash of its weights by name, shape and value")
    suite: str | None = Field(None, description="Suite that named the data and metrics, with its variant")
    seed: int = Field(0, description="Of sampled rows and answers, and of the intervals")
    config: dict[str, Any] = Field(default_factory=dict, description="How its answers were generated and judged")
    prompting: dict[str, Any] = Field(
        default_factory=dict,
        description="How questions were laid out: template, its variables, the date that it saw, and a hash of it all",
    )
    original: str | None = Field(None, description="The model before unlearning, where it was given")
    retrained: str | None = Field(None, description="The reference that never saw the forget rows, where it was given")
    data: dict[str, DataPrint] = Field(description="Set -> what its rows were")
    roles: dict[str, str] = Field(default_factory=dict, description="Set -> what its rows are for")
    scores: Scores
    aggregates: Aggregates
    kinds: KindCounts
    warnings: list[str] = Field(default_factory=list, description="Caveats that apply to the scores")
    provenance: Provenance | None = None
    seconds: float = Field(0.0, description="Wall time of measuring this model")


class AttackRecord(Frozen):
    """Attacks on one model, with all that is needed to repeat them."""

    schema_version: Literal[1] = SCHEMA_VERSION
    subject: str = Field(description="Run directory or model, as the user gave it")
    models: dict[str, str] = Field(description="unlearned, and where they are known original, retrained, refusal only")
    sha256: str | None = Field(description="Hash of the attacked weights; none: of the run that it lies beside")
    data: dict[str, DataPrint]
    rows: list[str] = Field(description="Ids of the forget rows that were attacked")
    asked: dict[str, Any] = Field(description="How answers were generated and judged")
    seed: int
    provenance: Provenance
    robustness: Robustness
    warnings: list[str] = Field(default_factory=list, description="Caveats that apply to the results")


class SequenceStep(Frozen):
    """Every request scored again after one of them was carried out; step 0 is the model before all of them."""

    step: int
    requests: list[dict[str, Score]] = Field(description="Metric name -> score, for every request in order")
    utility: Scores = Field(description="The same for the base retain rows and what is only measured")
    aggregates: Aggregates = Field(default_factory=dict, description="Model utility over them")
    message: str = Field("", description="Intervention of the guard in this step, if any")
    seconds: float = Field(0.0, description="Wall time of the step's own run")


class SequenceRecord(Frozen):
    """Requests carried out one after another."""

    schema_version: Literal[1] = SCHEMA_VERSION
    recipe: str
    config: dict[str, Any] = Field(description="The resolved configuration of the first step")
    requests: list[str] = Field(description="The requests in order, as the user named them")
    data: list[str] = Field(description="Hash of the rows of each request")
    kept: dict[str, str] = Field(default_factory=dict, description="Split -> hash of the rows that should stay")
    steps: list[SequenceStep] = Field(description="Step 0 and every step that is done")


def is_run(path: Path) -> bool:
    """Whether a folder is the directory of a run, finished or not."""
    return (path / RECORD_FILE).is_file() or (path / RUN_FILE).is_file()


def read_record(run_dir: Path) -> Record:
    """The record of a finished run, with the attacks that were carried out on it since.

    Raises:
        UserError: no record there, or one of another schema version, or a damaged one.
    """
    path = run_dir / RECORD_FILE
    if not path.is_file():
        raise UserError(f"{run_dir}: no {RECORD_FILE} here; is it the directory of a finished run?")
    record = read_as(Record, path)
    if not (run_dir / ATTACKS_FILE).is_file():
        return record
    return record.model_copy(update={"robustness": read_attacks(run_dir / ATTACKS_FILE).robustness})


def read_attacks(path: Path) -> AttackRecord:
    """The record of attacks.

    Raises:
        UserError: as `read_record`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return read_as(AttackRecord, path)


def read_as(kind: type[Kept], path: Path) -> Kept:
    """A record from its JSON file.

    Raises:
        UserError: it cannot be read, is damaged, or is one of another schema version.
    """
    try:
        record = kind.model_validate_json(path.read_bytes())
        note(path, record.model_dump)
        return record
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {os.strerror(error.errno or 0).lower()}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: not a record of schema version {SCHEMA_VERSION}: {where}: {first['msg']}") from None
