"""The target of a measurement or attack: a finished run or a model, with its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from expunge.attacks.config import AttackConfig
from expunge.config import check_run
from expunge.core.errors import UserError
from expunge.core.records import MODEL_FOLDER, StepLog, is_run, read_record
from expunge.core.validation import check
from expunge.data.base import DataSpec, spec_of
from expunge.data.encode import Documents
from expunge.data.load import load_data, splits_of
from expunge.data.splits import Splits
from expunge.diagnose.base import Stage
from expunge.evaluate.config import EvaluateConfig
from expunge.models.config import ModelConfig
from expunge.models.save import OLD_TENSORS, TENSORS


@dataclass(frozen=True)
class Target:
    """Models, data and options behind a run directory or a model name."""

    models: dict[Stage, ModelConfig]
    data: dict[str, DataSpec]
    documents: Documents = field(default_factory=Documents)
    seed: int = 0
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    attacks: AttackConfig = field(default_factory=AttackConfig)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the run saved beside its weights."""
    steered: int | None = None
    """Layer that the run's forget loss was configured for."""
    trained: tuple[str, ...] = ()
    """Names of the parameters that the run could move."""
    expected: Mapping[str, str] = field(default_factory=dict)
    """Split -> fingerprint of the rows that the run saw."""
    steps: tuple[StepLog, ...] = ()


def read_target(
    name: str, data: Mapping[str, str], splits: Collection[str], stage: Stage, template: str | None = None
) -> Target:
    """The models and data of a finished run; or a model by name, with data that are given or the shipped people.

    Args:
        name: directory of a run; or embedded name, folder, .gguf file or hub id.
        data: split -> data, as the user gave it.
        splits: which splits are wanted.
        stage: what a model by name is taken for.
        template: layout of the questions. Default: the run's own, or chat.

    Raises:
        UserError: no such run, a damaged one, or data without forget rows.
    """
    found = _finished(Path(name), splits) if is_run(Path(name)) else _plain(name, data, splits, stage)
    return replace(found, models={key: _laid_out(config, template) for key, config in found.models.items()})


def load_splits(subject: Target, given: Mapping[str, str]) -> Splits:
    """The rows of a target, replaced by those that the user gave.

    Raises:
        UserError: no such data, or splits that contradict each other.
    """
    chosen = {**subject.data, **{split: spec_of(text, f"data.{split}") for split, text in given.items()}}
    return splits_of(
        {split: load_data(spec, f"data.{split}") for split, spec in chosen.items()},
        {split: str(spec) for split, spec in chosen.items()},
    )


def _laid_out(config: ModelConfig, template: str | None) -> ModelConfig:
    """The same model with another layout of questions.

    Raises:
        UserError: no such layout.
    """
    if template is None:
        return config
    return check(ModelConfig, {**config.model_dump(mode="json", exclude_none=True), "template": template}, "model")


def _finished(run_dir: Path, splits: Collection[str]) -> Target:
    record = read_record(run_dir)
    run = check_run(record.config)
    folder = run_dir / MODEL_FOLDER
    specs = {split: getattr(run.data, split) for split in splits}
    return Target(
        models={
            "original": run.model,
            "unlearned": run.model.model_copy(update={"name": str(folder), "revision": None}),
        },
        data={split: spec for split, spec in specs.items() if spec is not None},
        documents=run.data.documents,
        seed=run.seed,
        evaluate=run.evaluate,
        attacks=run.attacks,
        tensors=_kept(folder),
        steered=run.forget.options.get("layer"),
        trained=tuple(record.selection.names),
        steps=tuple(record.steps),
        expected={split: record.data[split].sha256 for split in splits if split in record.data},
    )


def _kept(folder: Path) -> dict[str, Tensor]:
    """Tensors that a run saved beside its weights."""
    places = [folder / name for name in (TENSORS, OLD_TENSORS) if (folder / name).is_file()]
    return load_file(places[0]) if places else {}


def _plain(name: str, data: Mapping[str, str], splits: Collection[str], stage: Stage) -> Target:
    people = {} if data else {split: DataSpec(name="people", split=split) for split in splits if split != "holdout"}
    if data and "forget" not in data:
        raise UserError("data.forget: name the rows to forget, e.g. --data forget=facts.jsonl")
    return Target(models={stage: ModelConfig(name=name)}, data=people)
