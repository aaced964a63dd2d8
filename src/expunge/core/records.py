"""The typed records that stages hand to each other and to disk.

Everything after a run (terminal table, report, model card, comparison) reads these and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.errors import UserError

SCHEMA_VERSION: Literal[1] = 1
RECORD_FILE = "record.json"
ITEMS_FILE = "items.parquet"

Better = Literal["higher", "lower", "neither"]


class Frozen(BaseModel):
    """A record: immutable, and closed to fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(Frozen):
    """One metric on one split with its uncertainty; `value` is None, with a `reason`, if it cannot be computed."""

    value: float | None = Field(description="Mean over the n items")
    low: float | None = Field(None, description="Lower end of the 95% interval (bootstrap; Wilson for shares)")
    high: float | None = Field(None, description="Upper end of the same interval")
    n: int = Field(0, description="Items that the value is the mean of")
    better: Better = Field("neither", description="Which direction is wanted on this split")
    chance: float | None = Field(None, description="Value of a model that knows nothing, where one is defined")
    reference: str | None = Field(None, description="The named reference that the metric needs, if any")
    reason: str | None = Field(None, description="Why the value is absent")


Scores = dict[str, dict[str, Score]]
"""Split name -> metric name -> score."""


Kind = Literal["leak", "correct", "refusal", "hallucination", "wrong", "gibberish"]
"""What kind of answer one is: leak and hallucination on the forget split, correct and wrong on all others."""
FORGET_KINDS: tuple[Kind, ...] = ("leak", "refusal", "hallucination", "gibberish")
OTHER_KINDS: tuple[Kind, ...] = ("correct", "refusal", "wrong", "gibberish")
"""The same places as in `FORGET_KINDS`."""
KindCounts = dict[str, dict[Kind, int]]
"""Split name -> kind of answer -> rows."""


class DataPrint(Frozen):
    """What one data set was."""

    source: str = Field(description="Name, path or hub id as the user gave it")
    rows: int
    sha256: str = Field(description="Hash of the normalised rows, in order")
    truncated: int = Field(0, description="Rows cut to the model's context")


class ModelPrint(Frozen):
    """What the model was before the run."""

    source: str = Field(description="Name, path or hub id as the user gave it")
    sha256: str = Field(description="Hash of the original weights by name, shape and value")
    architecture: str = Field(description="Class of the transformers model")
    num_parameters: int
    num_layers: int
    template: str = Field(description="How question and answer are laid out: chat or plain")
    adapter: str = Field("none", description="none, or the peft adapter that was trained")


class SelectionPrint(Frozen):
    """Which weights were allowed to move, and why."""

    localizer: str
    num_parameters: int = Field(description="Trainable weights")
    names: list[str] = Field(description="Names of the selected parameters")
    evidence: dict[str, Any] = Field(default_factory=dict, description="What the localizer measured to choose them")


class StepLog(Frozen):
    """What one optimizer step logged."""

    step: int
    epoch: float
    values: dict[str, float] = Field(description="forget_loss, retain_loss, grad_norm, learning_rate and fillers' own")


class Check(Frozen):
    """A cheap teacher-forced look at the model during training."""

    step: int
    epoch: float
    forget: float = Field(description="Mean answer probability on a sample of forget rows")
    utility: float = Field(description="The same on held-out retain rows that are never trained on")


class GuardOutcome(Frozen):
    """What the guard did."""

    utility_floor: float | None = Field(description="Smallest allowed utility, as a share of the utility before")
    stopped: bool = Field(False, description="Training ended before its last epoch")
    restored_step: int | None = Field(None, description="The step whose weights were kept, when they are not the last")
    message: str = Field("", description="One sentence for the report; empty when the guard had nothing to do")


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
    precision: str = Field(description="float32, or bfloat16 autocast over float32 masters")
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
    kinds: dict[str, KindCounts] = Field(
        default_factory=dict, description="Stage (before, after) -> split -> kind of the greedy answer -> rows"
    )
    steps: list[StepLog] = Field(default_factory=list)
    checks: list[Check] = Field(default_factory=list)
    guard: GuardOutcome
    seconds: dict[str, float] = Field(
        description="Wall time by stage: load, localize, prepare, before, train, after, save, total"
    )
    peak_memory_mb: float = Field(
        description="Largest resident set of the process, or device memory where there is one"
    )
    num_steps: int
    num_epochs: float
    warnings: list[str] = Field(default_factory=list)


def read_record(run_dir: Path) -> Record:
    """The record of a finished run.

    Raises:
        UserError: no record there, or one of another schema version, or a damaged one.
    """
    path = run_dir / RECORD_FILE
    if not path.is_file():
        raise UserError(f"{run_dir}: no {RECORD_FILE} here; is it the directory of a finished run?")
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: not a record of schema version {SCHEMA_VERSION}: {where}: {first['msg']}") from None
