"""One run, read top to bottom: load, localize, measure, unlearn, measure again, record, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import Tensor

from expunge.attacks.engine import attack, chosen_attacks, new_record, run_context
from expunge.combine.base import Combine
from expunge.config import Run, check_run
from expunge.core.errors import UserError
from expunge.core.files import DiskError, require_space, write_atomic
from expunge.core.output_dir import adding, check_folder, claimed, contents
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import peak_memory_mb, provenance
from expunge.core.records import (
    ATTACKS_FILE,
    ITEMS_FILE,
    MODEL_FOLDER,
    RECORD_FILE,
    REPORT_FILE,
    RUN_FILE,
    DataPrint,
    ModelPrint,
    Record,
    SelectionPrint,
    read_record,
)
from expunge.core.toml import read_toml
from expunge.data.encode import Documents
from expunge.data.example import fingerprint, paraphrased
from expunge.data.load import load_splits
from expunge.data.splits import Splits
from expunge.data.summary import say_all, unused_of, warnings_of
from expunge.evaluate.answer_kinds import Labeller, count_kinds
from expunge.evaluate.changes import changes
from expunge.evaluate.items import write_items
from expunge.evaluate.measure import Measured, measure
from expunge.evaluate.score import load_metrics, load_set_metrics
from expunge.evaluate.sets import sets_of
from expunge.evaluate.validity import answer_warnings, check_keywords, doubts, known_warnings, row_warnings
from expunge.localize.base import Selection
from expunge.losses.base import TuningConfig
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.load import check_model_name, load_model
from expunge.models.reference_weights import OriginalWeights, weights_of
from expunge.models.save import save_model
from expunge.models.stored_weights import stored_weights
from expunge.train.checkpoints import check_inputs, checkpoints, inputs_of
from expunge.train.editing import check_steps
from expunge.train.guard import check_bounds
from expunge.train.space import bytes_written
from expunge.train.trainer import check_train
from expunge.train.tuning import fine_tune
from expunge.train.unlearn import Training, prepare, unlearn

_WORK = "work"
_OWN_MOMENTS = 6
"""Numbers for each trained weight that a rule's own optimizer keeps at most: two Adams, and a weight in two parts."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    record: Record
    run_dir: Path
    model: LanguageModel | None
    """The unlearned model; None when the run had already been finished before."""
    before: Measured | None = None
    """What the original model knew; None as above."""
    selection: Selection | None = None
    """Which weights were chosen; None as above."""


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


def execute(
    run: Run,
    out: Path,
    *,
    resume: bool = False,
    model: LanguageModel | None = None,
    splits: Splits | None = None,
    before: Measured | None = None,
    selection: Selection | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Result:
    """Carry out a run and leave its directory complete.

    Args:
        run: what to do.
        out: the run directory; nothing is written there before all input has been checked.
        resume: go on with the unfinished run in `out`.
        model: a loaded model instead of the one that the run names.
        splits: loaded data instead of what the run names.
        before: what an earlier run with the same model, data, seed and measurement found before it trained.
        selection: what the same localizer chose in an earlier run with the same model, data and seed.
        command: the command line, for the record.
        progress: where to report.

    Raises:
        UserError: bad input, or a directory that holds something else.
    """
    watch = Stopwatch()
    given = model is not None
    check_folder(out)
    run = run.dated(_earlier_date(out))
    check_out(run, out, resume)
    if (out / RECORD_FILE).is_file():
        with claimed(out):
            _finish(out)
        return Result(read_record(out), out, None)
    check_train(run.train)
    metrics = load_metrics(run.evaluate)
    load_set_metrics(run.evaluate, by_default=False)  # refused before any work
    labeller = Labeller(run.evaluate.kinds)
    attacks = chosen_attacks(run.attacks)
    forget, retain, combine, localizer = (run.build(slot) for slot in ("forget", "retain", "combine", "localize"))
    edit = None if run.edit.name == "none" else run.build("edit")
    check_bounds(run.guard, forget, retain, combine)
    check_steps(run.train, forget, retain, edit, run.diagnose.squeeze)
    with watch.stage("load"):
        if model is None:
            check_model_name(run.model.name)
        if run.model.reference is not None:
            check_model_name(run.model.reference, "model.reference")
        splits = splits or load_splits(run.data)
        about_rows = _about_rows(splits, run, progress)
        forget.check(splits.forget)
        retain.check(splits.retain)
        model = model or load_model(run.model, progress)
        run = run.dated(model.encoder.date)
        splits = _chunked(splits, model, run.data.documents)
        _check_lengths(splits, model)
    with watch.stage("localize"):
        model.merge_adapter()
        selection = selection or localizer.select(model, splits, run.seed)
        _free(model, selection, run)
        num_trained = sum(parameter.numel() for parameter in model.trainable())
        reference = _reference(model, run, progress)
    tunes = any(isinstance(part.config, TuningConfig) for part in (forget, retain, edit) if part is not None)
    _check_space(model, run, combine, out, tunes)
    model_print = _model_print(model, run)
    inputs = inputs_of(model, splits.named(), model_print.sha256)
    with watch.stage("prepare"):
        rows = (splits.forget, splits.retain)
        prepared = prepare(
            *(model, *rows, forget, retain, combine, run.train, run.guard, run.seed, progress),
            reference=reference,
            match=run.evaluate.match,
            edit=edit,
            tune=partial(
                fine_tune,
                seed=run.seed,
                folder=out / _WORK / "tuned",
                checkpoints=run.train.checkpoints,
                progress=progress,
                inputs=inputs,
            ),
        )

    with claimed(out), _entered(run, out, resume):
        check_inputs(out / _WORK, inputs)
        say_all(progress, splits.understood)
        with watch.stage("before"):
            how = (metrics, labeller, run.evaluate, run.seed, progress)
            before = before or measure(model, splits, *how, "measuring before", is_original=True, remember=not given)
        with watch.stage("train"):
            training = unlearn(
                model, prepared, run.train, run.guard, run.seed, out / _WORK, progress, run.diagnose.squeeze, inputs
            )
        del prepared, reference, retain, forget, combine, edit  # what they kept of the original model
        with watch.stage("after"):
            after = measure(model, splits, *how, "measuring after", original=before.evidence)
        data = _data_prints(splits, model)
        warnings = _warnings(training, model, splits)  # before attacks, whose prompts are no rows
        sets = sets_of(splits, run.evaluate)
        warnings = [
            *about_rows,
            *known_warnings(before),
            *answer_warnings(sets, before, "before the run, "),
            *answer_warnings(sets, after, "after the run, "),
            *warnings,
        ]
        made = provenance(command, *model.machine)
        attacked = None
        if attacks:
            with watch.stage("attack"):
                ground = replace(
                    run_context(model, splits, run.evaluate, run.attacks.max_rows, run.seed, before, after),
                    load_original=None if given else partial(load_model, run.model, progress),
                    read_original=None if given else partial(stored_weights, run.model),
                    tensors=training.tensors,
                    steered=run.forget.options.get("layer"),
                    trained=selection.names,
                    progress=progress,
                )
                attacked = attack(attacks, ground, budget=run.attacks.budget)
            names = {"unlearned": str(out / MODEL_FOLDER), "original": run.model.name}
            known = new_record(str(out), names, None, data, ground, made)
            tried = known.model_copy(update={"robustness": attacked})
            write_atomic(out / ATTACKS_FILE, tried.model_dump_json(indent=1))

        record = Record(
            recipe=run.recipe,
            config=run.tables(),
            provenance=made,
            model=model_print,
            data=data,
            selection=SelectionPrint(
                localizer=run.localize.name,
                num_parameters=num_trained,
                names=list(selection.names),
                evidence=selection.evidence,
                curves=list(selection.curves),
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
            robustness=attacked,
            seconds=watch.total(),
            peak_memory_mb=_peak_memory_mb(model),
            num_steps=training.num_steps,
            num_epochs=training.num_epochs,
            changes=changes(before.values, after.values, run.seed, after.units),
            warnings=warnings,
            doubts=doubts(sets, before),
        )
        measured = {"before": before, "after": after}
        stages = {stage: (one.evidence, one.values, one.kinds) for stage, one in measured.items()}
        write_items(out / ITEMS_FILE, stages, run.report.show_forget_text)
        with watch.stage("save"):
            _save(model, record, out, training.tensors)
        record = record.model_copy(update={"seconds": watch.total()})
        write_atomic(out / RECORD_FILE, record.model_dump_json(indent=1))
        _finish(out)
    return Result(record, out, model, before, selection)


def _finish(out: Path) -> None:
    """What follows the record, unless an earlier call came so far."""
    if not (out / REPORT_FILE).is_file():
        _report(out)
    shutil.rmtree(out / _WORK, ignore_errors=True)


def write_report(run_dir: Path) -> Path:
    """Make `report.html` from a finished run's records.

    Raises:
        UserError: no finished run there.
    """
    read_record(run_dir)
    with adding(run_dir):
        return _report(run_dir)


def _report(run_dir: Path) -> Path:
    from expunge.reports.html import write_html

    write_html(read_record(run_dir), run_dir, run_dir / REPORT_FILE)
    return run_dir / REPORT_FILE


def check_out(run: Run, out: Path, resume: bool) -> None:
    """Refuse a directory that this run must not write to.

    Raises:
        UserError: something else is there, another run is, or this one unfinished and `resume` is off.
    """
    check_folder(out)
    if not contents(out):
        return
    if not (out / RUN_FILE).is_file():
        raise UserError(f"{out}: is not empty and holds no {RUN_FILE}; choose another --out")
    different = _different(run.tables(), check_run(read_toml(out / RUN_FILE)).tables())
    if different:
        raise UserError(f"{out}: holds another run (different: {', '.join(different[:5])}); choose another --out")
    if not resume:
        state = "already finished" if (out / RECORD_FILE).is_file() else "unfinished; add --resume to go on with it"
        raise UserError(f"{out}: holds this run, {state}")


def _earlier_date(out: Path) -> str | None:
    """The date of the first start of the run in a directory; None where there is no run, or its prompts have none."""
    if not (out / RUN_FILE).is_file():
        return None
    date = check_run(read_toml(out / RUN_FILE)).model.date
    return None if date is None else date.isoformat()


@contextmanager
def _entered(run: Run, out: Path, resume: bool) -> Iterator[None]:
    """Write down what is done here, now that no other process can; what is refused before any step leaves nothing.

    Raises:
        UserError: another process has used the directory since it was checked.
    """
    check_out(run, out, resume)
    new = not contents(out)
    write_atomic(out / RUN_FILE, tomli_w.dumps(run.tables()))
    try:
        yield
    except DiskError:
        raise
    except UserError:
        if new and not checkpoints(out / _WORK):
            shutil.rmtree(out / _WORK, ignore_errors=True)
            (out / RUN_FILE).unlink()
        raise


def _different(ours: object, theirs: object, path: str = "") -> list[str]:
    """Dotted paths at which two trees of tables differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        return [
            found for key in keys for found in _different(ours.get(key), theirs.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if ours == theirs else [path]


def _chunked(splits: Splits, model: LanguageModel, documents: Documents) -> Splits:
    pieces: dict[str, Any] = {name: documents.rows(model.encoder, rows) for name, rows in splits.named()}
    return replace(splits, **pieces)


def _check_lengths(splits: Splits, model: LanguageModel) -> None:
    """Encode all that will be asked once, so that what is too long is refused before anything is written."""
    for _, rows in splits.named():
        for row in rows:
            model.encoder.example(row)
            for answer in filter(None, (row.paraphrased_answer, *row.perturbed_answer)):
                model.encoder.answered(row, answer)
            if row.paraphrased_question is not None:
                model.encoder.asked(paraphrased(row))


def _about_rows(splits: Splits, run: Run, progress: Progress) -> list[str]:
    """What can be told from the rows before any model is loaded; said at once, and recorded later.

    Raises:
        UserError: as `check_keywords`.
    """
    sets = sets_of(splits, run.evaluate)
    check_keywords(sets)
    warnings = row_warnings(sets, run.model.system_prompt)
    for warning in warnings:
        progress.say(f"warning: {warning}")
    return warnings


def _free(model: LanguageModel, selection: Selection, run: Run) -> None:
    """Let the chosen weights move, or an adapter on them, and no others."""
    if run.model.adapter == "lora":
        add_lora(model, selection.names, run.model.lora, run.seed)
    else:
        model.freeze_but(selection.names)


def _reference(model: LanguageModel, run: Run, progress: Progress) -> OriginalWeights | None:
    if run.model.reference is None:
        return None
    return weights_of(load_model(run.model.model_copy(update={"name": run.model.reference}), progress), model)


def _check_space(model: LanguageModel, run: Run, combine: Combine, out: Path, tunes: bool) -> None:
    """Room for the model, checkpoints and the guard's copy of the trained weights."""
    own = None if type(combine).optimizer is Combine.optimizer else _OWN_MOMENTS
    guarded = bool(run.guard.utility_floor and run.guard.holdout)
    num_bytes = bytes_written(model, run.train, guarded=guarded, own_moments=own, tunes=tunes)
    require_space(out, num_bytes, "this run")


def _model_print(model: LanguageModel, run: Run) -> ModelPrint:
    return ModelPrint(
        source=model.source,
        sha256=model.fingerprint(),
        architecture=type(model.base).__name__,
        num_parameters=sum(
            parameter.numel() for name, parameter in model.base.named_parameters() if "lora_" not in name
        ),
        num_layers=len(model.blocks()),
        template=model.encoder.template,
        adapter=run.model.adapter,
    )


def _data_prints(splits: Splits, model: LanguageModel) -> dict[str, DataPrint]:
    return {
        name: DataPrint(
            source=splits.sources.get(name, "given from Python"),
            rows=len(rows),
            sha256=fingerprint(rows),
            truncated=sum(row.id in model.encoder.truncated_ids for row in rows),
            unused=unused_of(splits.understood.get(name, ())),
        )
        for name, rows in splits.named()
    }


def _warnings(training: Training, model: LanguageModel, splits: Splits) -> list[str]:
    warnings = [*warnings_of(splits.understood), *training.warnings]
    if training.guard.utility_floor is None:
        warnings.append("The guard had no utility floor: nothing would have stopped a collapse.")
    if cut := len(model.encoder.truncated_ids):
        warnings.append(f"{cut} rows were longer than the context and lost the start of their prompt.")
    return warnings


def _peak_memory_mb(model: LanguageModel) -> float:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 1e6
    return peak_memory_mb()


def _save(model: LanguageModel, record: Record, out: Path, tensors: Mapping[str, Tensor]) -> None:
    from expunge.reports.model_card import model_card

    save_model(model, out / MODEL_FOLDER, model_card(record), tensors)
    model.narrow()
