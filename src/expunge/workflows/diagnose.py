"""One diagnosis: find the models and the data, measure, record, show."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.files import refuse_link, write_atomic
from expunge.core.output_dir import adding, check_absent
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import is_run
from expunge.core.report_section import Diagnosis
from expunge.core.validation import check
from expunge.data.summary import say_all
from expunge.diagnose.base import Diagnostic, DiagnosticContext
from expunge.models.load import load_model
from expunge.models.model_name import check_model_name
from expunge.targets import load_splits, read_target

FOLDER = "diagnose"
SPLITS = ("forget", "retain")


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
        data: forget, retain -> data that replaces the run's. Default for a model: the shipped people.
        seed: of all random draws. Default: the run's own, or 0.
        template: layout of the questions. Default: the run's own, or chat.
        command: the command line, for the record.
        progress: where to report.

    Raises:
        UserError: no such diagnostic, option, run or model; or a model where a run is needed.
    """
    start = time.perf_counter()
    kind = plugins.find(FOLDER, name, Diagnostic)  # type: ignore[type-abstract]
    diagnostic = kind(check(kind.Config, options or {}, name))
    found = read_target(subject, data or {}, SPLITS, "original", template)
    if kind.compares and "unlearned" not in found.models:
        raise UserError(
            f"{name}: compares an unlearned model with its original one; '{subject}' is no directory of a finished run"
        )
    for stage, config in found.models.items():
        check_model_name(config.name, f"{stage} model")
    splits = load_splits(found, data or {})
    say_all(progress, splits.understood)
    context = DiagnosticContext(
        loaders={stage: partial(load_model, config, progress) for stage, config in found.models.items()},
        splits=splits,
        seed=found.seed if seed is None else seed,
        tensors=found.tensors,
        steered=found.steered,
        trained=found.trained,
        expected={split: sha256 for split, sha256 in found.expected.items() if split not in (data or {})},
        max_rows=diagnostic.config.max_rows,
        documents=found.documents,
        steps=found.steps,
        progress=progress,
    )
    finding = diagnostic.measure(context)
    return Diagnosis(
        diagnostic=name,
        subject=subject,
        models={stage: config.name for stage, config in found.models.items()},
        data=context.data,
        options=diagnostic.config.model_dump(mode="json"),
        seed=context.seed,
        provenance=provenance(command, *context.machine),
        seconds=round(time.perf_counter() - start, 3),
        finding=finding,
    )


def default_folder(subject: str) -> Path | None:
    """The folder for diagnoses in a run's directory; None for a model."""
    return Path(subject) / FOLDER if is_run(Path(subject)) else None


def check_free(folder: Path, name: str) -> None:
    """Refuse to replace an earlier diagnosis; a page without its record is the remains of a killed process.

    Raises:
        UserError: as `check_absent`, or the folder is a link.
    """
    check_absent(_paths(folder, name)[0])
    refuse_link(folder)


def write(diagnosis: Diagnosis, folder: Path) -> tuple[Path, Path]:
    """Write the JSON record and the page; gives their paths."""
    from expunge.reports.section import page

    record, shown = _paths(folder, diagnosis.diagnostic)
    with adding(folder):
        write_atomic(shown, page(diagnosis))
        write_atomic(record, diagnosis.model_dump_json(indent=1))
    return record, shown


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    stem = name.rpartition(":")[2]
    return folder / f"{stem}.json", folder / f"{stem}.html"
