"""One run, read top to bottom: load, localize, measure, unlearn, measure again, attack, record, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from expunge.attacks.engine import attack, chosen_attacks, new_record, run_context
from expunge.config import Run
from expunge.core.files import require_space, write_atomic
from expunge.core.output_dir import check_folder, claimed
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import (
    ATTACKS_FILE,
    ITEMS_FILE,
    MODEL_FOLDER,
    RECORD_FILE,
    Record,
    read_record,
)
from expunge.data.encode import Documents
from expunge.data.example import paraphrased
from expunge.data.load import load_splits
from expunge.data.splits import Splits
from expunge.data.summary import say_all, warnings_of
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.items import write_items
from expunge.evaluate.measure import Measured
from expunge.evaluate.score import load_metrics, load_set_metrics
from expunge.evaluate.sets import sets_of
from expunge.evaluate.validity import answer_warnings, check_keywords, known_warnings, row_warnings
from expunge.inputs import prints_of
from expunge.localize.base import Selection
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.load import load_model
from expunge.models.model_name import check_model_name
from expunge.models.reference_weights import weights_of
from expunge.models.save import save_model
from expunge.models.stored_weights import stored_weights
from expunge.train.checkpoints import check_inputs, inputs_of
from expunge.train.editing import check_steps
from expunge.train.guard import check_bounds
from expunge.train.job import Method, TrainingJob
from expunge.train.space import bytes_written
from expunge.train.trainer import check_train
from expunge.train.unlearn import prepare, unlearn
from expunge.workflows.run_directory import WORK, check_out, entered, finish, first_date
from expunge.workflows.session import Session, print_model


@dataclass(frozen=True)
class RunResult:
    """A finished run; only the record, if an earlier call had finished it."""

    record: Record
    run_dir: Path
    model: LanguageModel | None = None
    """The unlearned model."""
    before: Measured | None = None
    """The measurement of the original model."""
    selection: Selection | None = None
    """The weights that were trained."""


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
) -> RunResult:
    """Carry out a run and leave its directory complete.

    Args:
        run: what to do.
        out: the run directory; nothing is written there before all input has been checked.
        resume: go on with the unfinished run in `out`.
        model: a loaded model instead of the one that the run names.
        splits: loaded data instead of what the run names.
        before: the first measurement of an earlier run with the same model, data, seed and metrics.
        selection: what the same localizer chose in an earlier run with the same model, data and seed.
        command: the command line, for the record.
        progress: where to report.

    Raises:
        UserError: bad input, or a directory that holds something else.
    """
    session = Session(run, out, command, progress, model is not None)
    check_folder(out)
    session.run = run.dated(first_date(out))
    check_out(session.run, out, resume)
    if (out / RECORD_FILE).is_file():
        with claimed(out):
            finish(out)
        return RunResult(read_record(out), out)
    choose(session)
    load(session, model, splits)
    localize(session, selection)
    identify(session)
    prepare_training(session)
    with claimed(out), entered(session.run, out, resume):
        measure_before(session, before)
        train(session)
        measure_after(session)
        attack_model(session)
        publish(session)
    return RunResult(session.record, out, session.model, session.before, session.selection)


def choose(session: Session) -> None:
    """Build everything that the run names, and refuse what cannot work whatever the model and the data."""
    run = session.run
    check_train(run.train)
    session.metrics = load_metrics(run.evaluate)
    load_set_metrics(run.evaluate, by_default=False)
    session.labeller = Labeller(run.evaluate.kinds)
    session.attacks = chosen_attacks(run.attacks)
    session.localizer = run.build("localize")
    edit = run.build("edit")
    session.method = Method(
        run.build("forget"), run.build("retain"), run.build("combine"), edit if edit.changes else None
    )
    check_bounds(run.guard, session.method)
    check_steps(run.train, session.method, run.diagnose.squeeze)


def load(session: Session, model: LanguageModel | None, splits: Splits | None) -> None:
    """Read rows and model; whatever the rows alone show to be wrong is refused before a model is loaded."""
    run = session.run
    with session.watch.stage("load"):
        if model is None:
            check_model_name(run.model.name)
        if run.model.reference is not None:
            check_model_name(run.model.reference, "model.reference")
        splits = splits or load_splits(run.data)
        sets = sets_of(splits, run.evaluate)
        check_keywords(sets)
        session.warnings = row_warnings(sets, run.model.system_prompt)
        for warning in session.warnings:
            session.progress.say(f"warning: {warning}")
        session.method.forget.check(splits.forget)
        session.method.retain.check(splits.retain)
        session.model = model or load_model(run.model, session.progress)
        session.run = run.dated(session.model.encoder.date)
        session.splits = _chunked(splits, session.model, run.data.documents)
        _check_lengths(session.splits, session.model)


def localize(session: Session, selection: Selection | None) -> None:
    """Choose the weights that may move, or an adapter on them, and freeze the others."""
    run, model = session.run, session.model
    with session.watch.stage("localize"):
        model.merge_adapter()
        session.selection = selection or session.localizer.select(model, session.splits, run.seed)
        if run.model.adapter == "lora":
            add_lora(model, session.selection.names, run.model.lora, run.seed)
        else:
            model.freeze_but(session.selection.names)
        session.num_trained = sum(parameter.numel() for parameter in model.trainable())
        session.reference = None
        if run.model.reference is not None:
            named = run.model.model_copy(update={"name": run.model.reference})
            session.reference = weights_of(load_model(named, session.progress), model)


def identify(session: Session) -> None:
    """Check for room on the disk, and hash everything that training starts from."""
    run, model = session.run, session.model
    guarded = bool(run.guard.utility_floor and run.guard.holdout)
    require_space(session.out, bytes_written(model, run.train, guarded=guarded, method=session.method), "this run")
    session.model_print = print_model(model, run.model.adapter)
    session.job = TrainingJob(
        model,
        run.train,
        run.guard,
        run.seed,
        session.out / WORK,
        session.progress,
        inputs_of(model, session.splits.named(), session.model_print.sha256),
        run.evaluate.match,
        run.diagnose.squeeze,
    )


def prepare_training(session: Session) -> None:
    """Let the method take from the original model whatever it needs."""
    with session.watch.stage("prepare"):
        rows = session.splits.forget, session.splits.retain
        session.prepared = prepare(session.job, session.method, *rows, reference=session.reference)


def measure_before(session: Session, before: Measured | None) -> None:
    """Measure the original model, unless an earlier run has; a checkpoint made from other inputs is refused."""
    check_inputs(session.job.folder, session.job.inputs)
    say_all(session.progress, session.splits.understood)
    with session.watch.stage("before"):
        remember = not session.is_loaded
        session.before = before or session.measure("measuring before", is_original=True, remember=remember)


def train(session: Session) -> None:
    """Unlearn, and let go of everything that was kept of the original model."""
    with session.watch.stage("train"):
        session.training = unlearn(session.job, session.prepared)
    del session.prepared, session.reference, session.method


def measure_after(session: Session) -> None:
    """Measure the unlearned model; collect the warnings before attacks encode prompts that are no rows."""
    run, model, splits = session.run, session.model, session.splits
    with session.watch.stage("after"):
        session.after = session.measure("measuring after", original=session.before.evidence)
    session.data = prints_of(splits, model.encoder.truncated_ids)
    sets = sets_of(splits, run.evaluate)
    session.warnings += [
        *known_warnings(session.before),
        *answer_warnings(sets, session.before, "before the run, "),
        *answer_warnings(sets, session.after, "after the run, "),
        *warnings_of(splits.understood),
        *session.training.warnings,
    ]
    if session.training.guard.utility_floor is None:
        session.warnings.append("The guard had no utility floor: nothing would have stopped a collapse.")
    if cut := len(model.encoder.truncated_ids):
        session.warnings.append(f"{cut} rows were longer than the context and lost the start of their prompt.")
    session.provenance = provenance(session.command, *model.machine)


def attack_model(session: Session) -> None:
    """Attack the unlearned model, if the run asks for it."""
    if not session.attacks:
        return
    run, out = session.run, session.out
    with session.watch.stage("attack"):
        rows = session.model, session.splits, run.evaluate, run.attacks.max_rows, run.seed
        context = replace(
            run_context(*rows, session.before, session.after),
            load_original=None if session.is_loaded else partial(load_model, run.model, session.progress),
            read_original=None if session.is_loaded else partial(stored_weights, run.model),
            tensors=session.training.tensors,
            steered=run.forget.options.get("layer"),
            trained=session.selection.names,
            progress=session.progress,
        )
        session.robustness = attack(session.attacks, context, budget=run.attacks.budget)
    names = {"unlearned": str(out / MODEL_FOLDER), "original": run.model.name}
    ground = new_record(str(out), names, None, session.data, context, session.provenance)
    record = ground.model_copy(update={"robustness": session.robustness})
    write_atomic(out / ATTACKS_FILE, record.model_dump_json(indent=1))


def publish(session: Session) -> None:
    """Write row values, model and record, in this order: a directory with a record is complete but for its page."""
    from expunge.reports.model_card import model_card

    out, show_text = session.out, session.run.report.show_forget_text
    session.record = session.make_record()
    write_items(out / ITEMS_FILE, {"before": session.before.items, "after": session.after.items}, show_text)
    with session.watch.stage("save"):
        save_model(session.model, out / MODEL_FOLDER, model_card(session.record), session.training.tensors)
        session.model.narrow()
    session.record = session.record.model_copy(update={"seconds": session.watch.total()})
    write_atomic(out / RECORD_FILE, session.record.model_dump_json(indent=1))
    finish(out)


def _chunked(splits: Splits, model: LanguageModel, documents: Documents) -> Splits:
    pieces: dict[str, Any] = {name: documents.rows(model.encoder, rows) for name, rows in splits.named()}
    return replace(splits, **pieces)


def _check_lengths(splits: Splits, model: LanguageModel) -> None:
    """Encode every row once, so that one that is too long is refused before anything is written."""
    for _, rows in splits.named():
        for row in rows:
            model.encoder.example(row)
            for answer in filter(None, (row.paraphrased_answer, *row.perturbed_answer)):
                model.encoder.answered(row, answer)
            if row.paraphrased_question is not None:
                model.encoder.asked(paraphrased(row))
