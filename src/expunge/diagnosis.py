"""One diagnosis, read top to bottom: find the models and the data, look, record, show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from expunge.config import check_run
from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.files import disk_errors, write_atomic
from expunge.core.finding import Diagnosis
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import RECORD_FILE, StepLog, read_record
from expunge.core.validation import check
from expunge.data.base import DataSpec
from expunge.data.example import Splits
from expunge.data.load import load_examples
from expunge.diagnose.base import Context, Diagnostic, Stage
from expunge.models.config import ModelConfig
from expunge.models.load import check_model_name, load_model
from expunge.models.save import TENSORS
from expunge.run import MODEL_FOLDER, RUN_FILE

FOLDER = "diagnose"
SPLITS = ("forget", "retain")


@dataclass(frozen=True)
class _Subject:
    """What a run directory or a model name stands for."""

    models: dict[Stage, ModelConfig]
    data: dict[str, DataSpec]
    chunk_tokens: int = 256
    seed: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    steered: int | None = None
    trained: tuple[str, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[StepLog, ...] = ()


def diagnose(
    name: str,
    subject: str,
    options: Mapping[str, Any] | None = None,
    data: Mapping[str, str] | None = None,
    *,
    seed: int | None = None,
    template: str | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Diagnosis:
    """Apply one diagnostic to a model, or to a finished run beside the model that it started from.

    Args:
        name: file name in `diagnose/`, or a dotted path of a user's own.
        subject: directory of a finished run; or embedded name, folder, .gguf file or hub id of a model.
        options: of the diagnostic.
        data: forget, retain -> data, in the place of the run's; for a model none: the shipped people.
        seed: of what is drawn; None: the run's own, or 0.
        template: layout of the questions; None: the run's own, or chat.
        command: the command line, for the record.
        progress: where to report.

    Raises:
        UserError: no such diagnostic, option, run or model; or a model where a run is needed.
    """
    start = time.perf_counter()
    kind = plugins.find(FOLDER, name, Diagnostic)  # type: ignore[type-abstract]
    diagnostic = kind(check(kind.Config, options or {}, name))
    found = _finished(Path(subject)) if _is_run(Path(subject)) else _plain(subject, data or {})
    if kind.compares and "unlearned" not in found.models:
        raise UserError(
            f"{name}: compares an unlearned model with its original one; '{subject}' is no directory of a finished run"
        )
    models = {stage: _laid_out(config, template) for stage, config in found.models.items()}
    for stage, config in models.items():
        check_model_name(config.name, f"{stage} model")
    context = Context(
        loaders={stage: partial(load_model, config, progress) for stage, config in models.items()},
        splits=_splits(found.data, data or {}),
        seed=found.seed if seed is None else seed,
        tensors=found.tensors,
        steered=found.steered,
        trained=found.trained,
        expected={split: sha256 for split, sha256 in found.expected.items() if split not in (data or {})},
        max_rows=diagnostic.config.max_rows,
        chunk_tokens=found.chunk_tokens,
        steps=found.steps,
        progress=progress,
    )
    finding = diagnostic.measure(context)
    return Diagnosis(
        diagnostic=name,
        subject=subject,
        models={stage: config.name for stage, config in models.items()},
        data=context.data,
        options=diagnostic.config.model_dump(mode="json"),
        seed=context.seed,
        provenance=provenance(command, context.device, context.precision),
        seconds=round(time.perf_counter() - start, 3),
        finding=finding,
    )


def default_folder(subject: str) -> Path | None:
    """Where the diagnoses of a run are kept: in its directory; None for a model."""
    return Path(subject) / FOLDER if _is_run(Path(subject)) else None


def check_free(folder: Path, name: str) -> None:
    """Refuse to replace an earlier diagnosis.

    Raises:
        UserError: one of that name is there.
    """
    for path in _paths(folder, name):
        if path.exists():
            raise UserError(f"{path}: is there already; choose another --out")


def write(diagnosis: Diagnosis, folder: Path) -> tuple[Path, Path]:
    """Write the JSON record and the page; gives their paths."""
    from expunge.reports.finding import page

    record, shown = _paths(folder, diagnosis.diagnostic)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomic(record, diagnosis.model_dump_json(indent=1))
    write_atomic(shown, page(diagnosis))
    return record, shown


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    stem = name.rpartition(":")[2]
    return folder / f"{stem}.json", folder / f"{stem}.html"


def _is_run(path: Path) -> bool:
    return (path / RECORD_FILE).is_file() or (path / RUN_FILE).is_file()


def _finished(run_dir: Path) -> _Subject:
    record = read_record(run_dir)
    run = check_run(record.config)
    folder = run_dir / MODEL_FOLDER
    return _Subject(
        models={
            "original": run.model,
            "unlearned": run.model.model_copy(update={"name": str(folder), "revision": None}),
        },
        data={split: getattr(run.data, split) for split in SPLITS},
        chunk_tokens=run.data.chunk_tokens,
        seed=run.seed,
        tensors=load_file(folder / TENSORS) if (folder / TENSORS).is_file() else {},
        steered=run.forget.options.get("layer"),
        trained=tuple(record.selection.names),
        steps=tuple(record.steps),
        expected={split: record.data[split].sha256 for split in SPLITS},
    )


def _plain(name: str, data: Mapping[str, str]) -> _Subject:
    people = {} if data else {split: DataSpec(name="people", split=split) for split in SPLITS}
    if data and "forget" not in data:
        raise UserError("data.forget: say which rows, e.g. --data forget=facts.jsonl")
    return _Subject(models={"original": ModelConfig(name=name)}, data=people)


def _laid_out(config: ModelConfig, template: str | None) -> ModelConfig:
    if template is None:
        return config
    return check(ModelConfig, {**config.model_dump(mode="json", exclude_none=True), "template": template}, "model")


def _splits(specs: Mapping[str, DataSpec], given: Mapping[str, str]) -> Splits:
    chosen = {**specs, **{split: DataSpec.model_validate(text) for split, text in given.items()}}
    rows = {split: load_examples(spec, f"data.{split}") for split, spec in chosen.items()}
    splits = Splits(rows["forget"], rows.get("retain", ()), sources={name: str(spec) for name, spec in chosen.items()})
    splits.check()
    return splits
