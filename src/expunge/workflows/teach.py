"""One teaching run: load, fine-tune, save. A folder that already holds the same result stays as it is."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expunge.config import read_tables
from expunge.core.errors import UserError
from expunge.core.files import require_space, write_atomic
from expunge.core.output_dir import check_folder, check_holds_only, claimed
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import sha256_text
from expunge.core.records import read_as
from expunge.core.toml import Tables, merge
from expunge.core.validation import check
from expunge.data.example import Example, fingerprint
from expunge.data.load import load_data
from expunge.data.summary import say_all
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.load import load_model
from expunge.models.model_name import check_model_name
from expunge.models.save import save_model
from expunge.retain.nll import NLL
from expunge.train.checkpoints import inputs_of
from expunge.train.fit import TrainingResult
from expunge.train.space import bytes_written
from expunge.train.teach import Teach, TeachRecord, teach
from expunge.train.trainer import check_train

RECORD = "teach.json"
_MODEL = "model"
_WORK = "work"
_DATE = "date"
_TAUGHT = "taught"


@dataclass(frozen=True)
class Taught:
    """Where the taught model is."""

    folder: Path
    record: TeachRecord
    cached: bool
    """Whether an earlier call had already made it."""


def load_teach(file: Path) -> Teach:
    """Read and check a teaching file; its data files are looked up beside it, as those of a run file are.

    Raises:
        UserError: no such file, unknown key, wrong type.
    """
    return check_teach(merge({}, read_tables(file)))


def check_teach(tables: Tables) -> Teach:
    """A teaching run from its tables."""
    return check(Teach, tables, "")


def execute_teach(plan: Teach, out: Path | None, progress: Progress = SILENT) -> Taught:
    """Carry out a teaching run.

    Args:
        plan: what to do.
        out: folder of the result. Default: one under `taught/` named by content, which a second call finds.
        progress: where to report.

    Raises:
        UserError: bad input, or a folder that holds something else.
    """
    start = time.perf_counter()
    if not plan.train.takes_steps:
        raise UserError("train.epochs: 0 would teach nothing; set it to 1 or more")
    check_folder(out or Path(_TAUGHT))
    check_train(plan.train)
    check_model_name(plan.model.name)
    loaded = [load_data(spec, "data.teach") for spec in plan.data.teach]
    rows = _unique(row for one in loaded for row in one.examples)
    model = load_model(plan.model, progress)
    date = model.encoder.date
    rows = model.encoder.chunks(rows, plan.data.chunk_tokens)
    for row in rows:
        model.encoder.example(row)
    config = plan.model_dump(mode="json", exclude_none=True)
    weights = model.fingerprint()
    content = sha256_text(json.dumps(config, sort_keys=True), fingerprint(rows), weights)
    folder = out or Path(_TAUGHT) / content[:12]
    _check_out(folder, content)
    with claimed(folder):
        found = _check_out(folder, content)  # again, now that no other process can change it
        if found is None:
            say_all(progress, {"teach": tuple(part for one in loaded for part in one.understood)})
            work = folder / _WORK / content[:12]
            if date is not None and (date := _first_date(work, date)) != model.encoder.date:
                model = load_model(plan.model.dated(date), progress)
            inputs = inputs_of(model, [("teach", rows)], weights)
            training = _taught(plan, model, rows, folder, work, inputs, progress)
            found = TeachRecord(
                config=config if date is None else {**config, "model": {**config["model"], "date": date}},
                content=content,
                rows=len(rows),
                num_steps=training.num_steps,
                final_loss=training.steps[-1].values["teach_loss"],
                seconds=round(time.perf_counter() - start, 3),
            )
            write_atomic(folder / RECORD, found.model_dump_json(indent=1))
            shutil.rmtree(folder / _WORK, ignore_errors=True)
            return Taught(folder, found, cached=False)
        shutil.rmtree(folder / _WORK, ignore_errors=True)  # a kill may have come just before
    return Taught(folder, found, cached=True)


def _first_date(work: Path, today: str) -> str:
    """The date of the first start of an unfinished teaching run, which is written down at that start."""
    path = work / _DATE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, today)
    return path.read_text(encoding="utf-8").strip()


def _check_out(folder: Path, content: str) -> TeachRecord | None:
    """The record of the same teaching run, if it was finished there.

    Raises:
        UserError: the folder holds something else.
    """
    if not check_holds_only(folder, RECORD, besides=(_WORK, _MODEL)):
        return None
    found = read_as(TeachRecord, folder / RECORD)
    if found.content != content:
        raise UserError(f"{folder}: holds another taught model; choose another --out")
    return found


def _taught(
    plan: Teach,
    model: LanguageModel,
    rows: Sequence[Example],
    folder: Path,
    work: Path,
    inputs: Mapping[str, str],
    progress: Progress,
) -> TrainingResult:
    """Fine-tune and save."""
    names = [name for name, _ in model.network.named_parameters()]
    if plan.model.adapter == "lora":
        add_lora(model, names, plan.model.lora, plan.seed)
    else:
        model.freeze_but(names)
    require_space(folder, bytes_written(model, plan.train), "teaching")
    work.mkdir(parents=True, exist_ok=True)
    training = teach(model, rows, NLL(NLL.Config()), plan.train, plan.seed, work, progress, inputs)
    save_model(model, folder / _MODEL)
    return training


def _unique(rows: Iterable[Example]) -> tuple[Example, ...]:
    """Each question once."""
    known: set[str] = set()
    unique = []
    for row in rows:
        if row.key not in known:
            known.add(row.key)
            unique.append(row)
    return tuple(unique)
