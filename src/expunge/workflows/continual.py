"""Requests one after another: each starts from the last one's model, and after each of them all are scored again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from expunge.config import Run, load_tables, read_tables
from expunge.core.errors import UserError
from expunge.core.files import require_space, write_atomic
from expunge.core.output_dir import check_holds_only, claimed
from expunge.core.progress import SILENT, Progress
from expunge.core.records import MODEL_FOLDER, SEQUENCE_FILE, SequenceRecord, SequenceStep, read_as
from expunge.core.toml import Tables
from expunge.data.example import Example, fingerprint
from expunge.data.load import load_data, load_splits
from expunge.data.splits import Splits
from expunge.data.summary import say_all
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.measure import Measured, measure
from expunge.evaluate.score import load_metrics
from expunge.models.base import LanguageModel
from expunge.models.load import load_model
from expunge.reports.continual import write_sequence
from expunge.train.space import saved_by_steps
from expunge.workflows.run import execute


@dataclass(frozen=True)
class SequencePlan:
    """Runs in order. Run s forgets request s and keeps the base retain rows and the requests that come after it."""

    runs: tuple[Run, ...]
    requests: tuple[tuple[Example, ...], ...]
    """Rows of each request."""
    kept: Splits
    """Rows that should survive all steps: the base retain rows, neighbours and general knowledge; no forget rows."""


def load_plan(file: Path, out: Path, settings: Sequence[str] = ()) -> SequencePlan:
    """Read a run file in which `data.requests`, a list of data sets, replaces `data.forget`.

    Step s forgets request s. Requests after s are retain rows, those before s are in neither set, and the reference is
    the model that the step starts from (the continual scenario of arXiv:2410.08109).

    Args:
        file: TOML file of the run.
        out: the directory of the whole sequence; step s writes to `step-s` below it.
        settings: `a.b=c` strings that win over the file.

    Raises:
        UserError: what a run refuses; fewer than two requests; a row that two requests share.
    """
    tables = read_tables(file)
    data = tables.get("data", {})
    if not isinstance(data, dict):
        raise UserError(f"{file}: data: expected a table, [data], got {data!r}")
    data = dict(data)
    specs = data.pop("requests", None)
    if not isinstance(specs, list) or len(specs) < 2:
        raise UserError(f"{file}: data.requests: name at least two data sets, to be forgotten one after another")
    if "forget" in data:
        raise UserError(f"{file}: data.forget: leave it out, data.requests replaces it")
    if "retain" not in data:
        raise UserError(f"{file}: missing key 'data.retain'")
    base = data["retain"] if isinstance(data["retain"], list) else [data["retain"]]
    runs = []
    for number, spec in enumerate(specs, start=1):
        step: Tables = {**tables, "data": {**data, "forget": spec, "retain": [*base, *specs[number:]]}}
        if number > 1:
            model = step.get("model", {})
            model = {"name": model} if isinstance(model, str) else model
            step["model"] = {**model, "name": str(step_folder(out, number - 1) / MODEL_FOLDER)}
        runs.append(load_tables(step, settings))
    loaded = [load_data(run.data.forget, f"data.requests.{index}") for index, run in enumerate(runs)]
    requests = tuple(one.examples for one in loaded)
    _check_disjoint(requests)
    for run in runs:
        splits = load_splits(run.data)
    kept = {name: parts for name, parts in splits.understood.items() if name not in ("forget", "holdout")}
    understood = {**{f"request {number}": one.understood for number, one in enumerate(loaded, start=1)}, **kept}
    rest = Splits((), splits.retain, splits.neighbour, splits.general, understood=understood)
    return SequencePlan(tuple(runs), requests, rest)


def execute_plan(
    plan: SequencePlan, out: Path, *, resume: bool = False, command: str = "", progress: Progress = SILENT
) -> SequenceRecord:
    """Carry out every step that is not done yet, and score all requests after each.

    Args:
        plan: what to do.
        out: the directory of the sequence.
        resume: go on with the unfinished sequence in `out`.
        command: the command line, for the steps' records.
        progress: where to report.

    Raises:
        UserError: `out` holds something else, or an unfinished sequence and `resume` is off.
    """
    plan = _dated(plan, _earlier_date(out))
    _start(plan, out, resume)
    with claimed(out):
        return _carry_out(plan, out, _start(plan, out, resume), command, progress)


def _carry_out(
    plan: SequencePlan, out: Path, record: SequenceRecord, command: str, progress: Progress
) -> SequenceRecord:
    first = plan.runs[0]
    if not record.steps:
        model = load_model(first.model, progress)
        plan = _dated(plan, model.encoder.date)
        models = saved_by_steps(model, first.model.adapter == "lora", len(plan.runs))
        require_space(out, models, f"a sequence of {len(plan.runs)} models")
        record = record.model_copy(update={"config": plan.runs[0].tables()})
        say_all(progress, plan.kept.understood)
        record = _add(record, _measure(plan, model, 0, progress), out)
        del model
    for number, run in enumerate(plan.runs, start=1):
        if number < len(record.steps):
            continue
        folder = step_folder(out, number)
        progress.say(f"request {number} of {len(plan.runs)}: {run.data.forget}")
        result = execute(run, folder, resume=folder.is_dir(), command=command, progress=progress)
        model = result.model or load_model(run.model.model_copy(update={"name": str(folder / MODEL_FOLDER)}), progress)
        step = _measure(plan, model, number, progress)
        update = {"message": result.record.guard.message, "seconds": result.record.seconds["total"]}
        del model, result  # the next step loads another one
        record = _add(record, step.model_copy(update=update), out)
    write_sequence(record, out)  # a kill may have come between the last record and its page
    return record


def _dated(plan: SequencePlan, date: str | None) -> SequencePlan:
    """The plan with one date in all its steps, if its chat template uses one."""
    return replace(plan, runs=tuple(run.dated(date) for run in plan.runs))


def _earlier_date(out: Path) -> str | None:
    """The date that chat templates were given at the first start of the sequence."""
    if not (out / SEQUENCE_FILE).is_file():
        return None
    date = read_sequence(out).config.get("model", {}).get("date")
    return None if date is None else str(date)


def step_folder(out: Path, number: int) -> Path:
    """The run directory of a step; the first is number 1."""
    return out / f"step-{number}"


def read_sequence(out: Path) -> SequenceRecord:
    """The record of a sequence, finished or not.

    Raises:
        UserError: none there, or a damaged one.
    """
    path = out / SEQUENCE_FILE
    if not path.is_file():
        raise UserError(f"{out}: no {SEQUENCE_FILE} here; is it the directory of a sequence?")
    return read_as(SequenceRecord, path)


def _start(plan: SequencePlan, out: Path, resume: bool) -> SequenceRecord:
    new = SequenceRecord(
        recipe=plan.runs[0].recipe,
        config=plan.runs[0].tables(),
        requests=[str(run.data.forget) for run in plan.runs],
        data=[fingerprint(rows) for rows in plan.requests],
        kept={name: fingerprint(rows) for name, rows in plan.kept.named() if rows},
        steps=[],
    )
    if not check_holds_only(out, SEQUENCE_FILE):
        return new
    found = read_sequence(out)
    kept = found.kept or new.kept  # version 0.1 did not write it
    if found.model_copy(update={"steps": [], "kept": kept}) != new:
        raise UserError(f"{out}: holds another sequence (other requests, rows or configuration); choose another --out")
    if not resume:
        done = len(found.steps) - 1
        raise UserError(f"{out}: holds this sequence, {done} of {len(plan.runs)} steps done; add --resume to go on")
    return found


def _add(record: SequenceRecord, step: SequenceStep, out: Path) -> SequenceRecord:
    record = record.model_copy(update={"steps": [*record.steps, step]})
    write_atomic(out / SEQUENCE_FILE, record.model_dump_json(indent=1))
    write_sequence(record, out)
    return record


def _measure(plan: SequencePlan, model: LanguageModel, number: int, progress: Progress) -> SequenceStep:
    run = plan.runs[0]
    metrics, labeller = load_metrics(run.evaluate), Labeller(run.evaluate.kinds)
    label = f"after step {number}" if number else "before all steps"

    def measured(splits: Splits, what: str) -> Measured:
        doing = f"{label}: {what}"
        return measure(model, splits, metrics, labeller, run.evaluate, run.seed, progress, doing, remember=True)

    requests = [
        measured(Splits(rows, ()), f"request {index}").scores["forget"]
        for index, rows in enumerate(plan.requests, start=1)
    ]
    kept = measured(plan.kept, "the rest")
    utility = {name: found for name, found in kept.aggregates.items() if name.startswith("mu")}
    return SequenceStep(step=number, requests=requests, utility=kept.scores, aggregates=utility)


def _check_disjoint(requests: Sequence[Sequence[Example]]) -> None:
    known: dict[str, tuple[int, str]] = {}
    for index, rows in enumerate(requests):
        for row in rows:
            other, id_ = known.setdefault(row.key, (index, row.id))
            if other != index:
                raise UserError(
                    f"data.requests.{index}: row '{row.id}' is also in data.requests.{other} as '{id_}' "
                    "(same text but for case and spaces)"
                )
