"""Models measured alike: by a suite or on the user's own rows, beside the original and a retrained reference."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from expunge.core.errors import UserError, near
from expunge.core.files import write_atomic
from expunge.core.output_dir import check_empty, check_folder, contents, is_ours
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import EVALUATION_FILE, ITEMS_FILE, DataPrint, Evaluation
from expunge.core.schema import SPLITS
from expunge.data.load import splits_of
from expunge.data.summary import say_all, warnings_of
from expunge.evaluate.answer_kinds import Labeller, count_kinds
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.harness import check_tasks, harness_scores
from expunge.evaluate.items import write_items
from expunge.evaluate.measure import Measured, Reference, measure
from expunge.evaluate.reference import is_reference_file, read_reference
from expunge.evaluate.score import load_metrics, load_set_metrics
from expunge.evaluate.sets import Sets, sets_of
from expunge.evaluate.suite import Suite
from expunge.evaluate.validity import answer_warnings, check_keywords, known_warnings, row_warnings
from expunge.evaluate.whitebox.engine import load_whitebox, measure_whitebox
from expunge.inputs import Rows, is_loaded, model_name, print_of, read_data, read_model
from expunge.models.base import LanguageModel
from expunge.reports.evaluation import CSV_FILE, TABLE_FILE, as_csv, as_markdown

_WRITTEN_FIRST = (ITEMS_FILE, CSV_FILE, TABLE_FILE)
"""What is there before the records are: alone, it is what a killed process left."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What every model is measured by."""

    sets: Sets
    prints: Mapping[str, DataPrint]
    config: EvaluateConfig
    seed: int = 0
    suite: str | None = None
    model_config: Mapping[str, Any] = field(default_factory=dict)


def data_plan(
    data: Mapping[str, Rows], config: EvaluateConfig, seed: int = 0, model_config: Mapping[str, Any] | None = None
) -> EvaluationPlan:
    """Measure on rows of one's own.

    Args:
        data: role (forget, retain, neighbour, general, holdout) -> rows.
        config: what is measured.
        seed: of sampled answers and of the intervals.
        model_config: further keys of `[model]`.

    Raises:
        UserError: an unknown role, no such data, a row that is no row, a forget row in another role too.
    """
    load_metrics(config)
    load_set_metrics(config, by_default=False)
    if unknown := sorted(set(map(str, data)) - set(SPLITS)):
        raise UserError(f"data: no split '{unknown[0]}'{near(unknown[0], SPLITS)}")
    loaded = {name: read_data(name, value) for name, value in data.items()}
    splits = splits_of(loaded, {})
    prints = {name: print_of(data[name], *loaded[name]) for name, _ in splits.named()}
    return EvaluationPlan(sets_of(splits, config), prints, config, seed, None, model_config or {})


def suite_plan(suite: Suite, name: str, seed: int = 0) -> EvaluationPlan:
    """Measure by a suite.

    Args:
        suite: a loaded one.
        name: what the user called it.
        seed: of sampled answers and of the intervals.

    Raises:
        UserError: as `load_examples`.
    """
    sets = suite.rows()
    prints = {key: print_of(str(suite.sets[key].data), one.rows, one.understood) for key, one in sets.items()}
    return EvaluationPlan(sets, prints, suite.evaluate, seed, name, suite.model)


@dataclass(frozen=True)
class Evaluated:
    """One model's record, and what it was made of."""

    record: Evaluation
    measured: Measured


def evaluate_models(
    models: Sequence[Any],
    plan: EvaluationPlan,
    *,
    original: Any = None,
    reference: Any = None,
    whitebox: Sequence[str] = (),
    lm_eval: Sequence[str] = (),
    tokenizer: Any = None,
    command: str = "",
    progress: Progress = SILENT,
) -> list[Evaluated]:
    """Measure models one after another; no two are in memory at once.

    Args:
        models: names, or loaded networks.
        plan: sets, metrics and settings.
        original: the model before unlearning: similarity is to its answers, and it is asked once.
        reference: a model that never saw the forget rows, or the file of its values that `expunge import-ou` makes;
            set metrics compare with it.
        whitebox: measures of `evaluate/whitebox`, which need all three kinds of model.
        lm_eval: tasks of EleutherAI's harness, scored with the same loaded model.
        tokenizer: needed with loaded networks.
        command: the command line, for the records.
        progress: where to report.

    Raises:
        UserError: bad input.
    """
    metrics = load_metrics(plan.config)
    check_tasks(lm_eval)
    check_keywords(plan.sets)
    about_rows = row_warnings(plan.sets, plan.model_config.get("system_prompt"))
    for warning in about_rows if is_first_process() else ():
        progress.say(f"warning: {warning}")
    labeller = Labeller(plan.config.kinds)
    forget = [row for one in plan.sets.values() if one.role == "forget" for row in one.rows]
    if whitebox:
        load_whitebox(whitebox, {})
        if original is None or reference is None or is_reference_file(reference) or not forget:
            raise UserError("--whitebox: needs the original model, the retrained model and forget rows")

    options = dict(plan.model_config)

    def loaded(given: Any) -> LanguageModel:
        model = read_model(given, tokenizer, options, progress)
        if model.encoder.date is not None:  # all models are asked on the same day
            options.setdefault("date", model.encoder.date)
        return model

    unsaid = {name: one.understood for name, one in plan.sets.items()}
    about_data = warnings_of(unsaid)

    def measured(given: Any, label: str, **beside: Any) -> tuple[LanguageModel, Measured]:
        model = loaded(given)
        say_all(progress, unsaid)
        unsaid.clear()
        beside["remember"] = not is_loaded(given)
        if not plan.sets:
            return model, Measured({}, {}, {}, {}, {})
        return model, measure(model, plan.sets, metrics, labeller, plan.config, plan.seed, progress, label, **beside)

    before: Measured | None = None
    compared = None
    if is_reference_file(reference):
        file = read_reference(Path(reference))
        file.check(plan.sets, str(reference))
        compared = Reference(file.set_values)
    elif reference is not None:
        _, found = measured(reference, "measuring reference", is_reference=True)
        compared = Reference(found.set_values, found.evidence)
    if original is not None:
        before = measured(original, "measuring original", is_original=True, reference=compared)[1]
        about_rows += known_warnings(before, "Before unlearning")
    results = []
    for place, given in enumerate(models, start=1):
        start = time.perf_counter()
        label = "measuring" if len(models) == 1 else f"measuring {place}/{len(models)}"
        evidence = None if before is None else before.evidence
        model, result = measured(given, label, original=evidence, reference=compared)
        if lm_eval:
            result.scores.update(harness_scores(model, lm_eval, plan.seed))
        prompting = model.encoder.prompting()
        source, sha256, where = model.source, model.fingerprint(), model.machine
        del model
        if whitebox:
            place_of = next(name for name, one in plan.sets.items() if one.role == "forget")
            result.scores[place_of] |= measure_whitebox(
                whitebox,
                partial(loaded, original),
                partial(loaded, given),
                partial(loaded, reference),
                forget,
                seed=plan.seed,
                progress=progress,
            )
        record = Evaluation(
            model=source,
            sha256=sha256,
            suite=plan.suite,
            seed=plan.seed,
            config=plan.config.model_dump(mode="json"),
            prompting=prompting,
            original=None if original is None else model_name(original),
            retrained=None if reference is None else model_name(reference),
            data=dict(plan.prints),
            roles=dict(result.roles),
            scores=result.scores,
            aggregates=result.aggregates,
            kinds=count_kinds(result.kinds, result.roles),
            warnings=[*about_data, *about_rows, *answer_warnings(plan.sets, result)],
            provenance=provenance(command, *where),
            seconds=round(time.perf_counter() - start, 3),
        )
        results.append(Evaluated(record, result))
    return results


def is_first_process() -> bool:
    """Whether this process prints and writes: with several, each has all results."""
    return bool(PartialState().is_main_process)


def check_out(out: Path) -> None:
    """Refuse a directory that holds something besides unfinished results of a process that was killed.

    Raises:
        UserError: it cannot be written to, or is not empty.
    """
    check_folder(out)
    if is_ours(out) and all(path.name in _WRITTEN_FIRST for path in contents(out)):
        return
    check_empty(out)


def write_results(results: Sequence[Evaluated], out: Path, show_text: bool = False) -> None:
    """Write records, a table, a CSV file and every row's numbers to a directory that is claimed; the records last.

    Raises:
        UserError: as `check_out`, or the disk is full.
    """
    check_out(out)
    records = [result.record for result in results]
    stages = {
        record.model: (result.measured.evidence, result.measured.values, result.measured.kinds)
        for record, result in zip(records, results, strict=True)
    }
    write_items(out / ITEMS_FILE, stages, show_text)
    write_atomic(out / CSV_FILE, as_csv(records))
    write_atomic(out / TABLE_FILE, as_markdown(records))
    text = ",\n".join(record.model_dump_json(indent=1) for record in records)
    write_atomic(out / EVALUATION_FILE, f"[{text}]\n")
