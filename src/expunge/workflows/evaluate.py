"""Measure models alike, by a suite or on the user's own rows, and compare them with the original and a reference."""

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
from expunge.data.example import Example
from expunge.data.load import splits_of
from expunge.data.summary import DataSummary, say_all, warnings_of
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
"""Files written before the records: without them, they are the remains of a killed process."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Rows and settings that every model is measured with."""

    sets: Sets
    prints: Mapping[str, DataPrint]
    config: EvaluateConfig
    seed: int = 0
    suite: str | None = None
    model_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summaries(self) -> dict[str, tuple[DataSummary, ...]]:
        """Set -> how each of its data sets was read."""
        return {name: one.understood for name, one in self.sets.items()}

    @property
    def forget_sets(self) -> list[str]:
        """Names of the sets to forget."""
        return [name for name, one in self.sets.items() if one.role == "forget"]

    @property
    def forget_rows(self) -> list[Example]:
        """Their rows."""
        return [row for name in self.forget_sets for row in self.sets[name].rows]


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
    """One model's record, and the measurement behind it."""

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
        original: the model before unlearning: similarity is to its answers; measured once.
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
    check_tasks(lm_eval)
    check_keywords(plan.sets)
    warnings = row_warnings(plan.sets, plan.model_config.get("system_prompt"))
    for warning in warnings if is_first_process() else ():
        progress.say(f"warning: {warning}")
    if whitebox:
        load_whitebox(whitebox, {})
        if original is None or reference is None or is_reference_file(reference) or not plan.forget_rows:
            raise UserError("--whitebox: needs the original model, the retrained model and forget rows")
    evaluator = _Evaluator(plan, tokenizer, progress)
    evaluator.use_reference(reference)
    if original is not None:
        warnings += known_warnings(evaluator.use_original(original), "Before unlearning")
    warnings = [*warnings_of(plan.summaries), *warnings]
    results = []
    for place, given in enumerate(models, start=1):
        start = time.perf_counter()
        label = "measuring" if len(models) == 1 else f"measuring {place}/{len(models)}"
        measured, identity = evaluator.evaluate(given, label, lm_eval, command)
        if whitebox:
            measured.scores[plan.forget_sets[0]] |= measure_whitebox(
                whitebox,
                partial(evaluator.load, original),
                partial(evaluator.load, given),
                partial(evaluator.load, reference),
                plan.forget_rows,
                seed=plan.seed,
                progress=progress,
            )
        record = Evaluation(
            **identity,
            suite=plan.suite,
            seed=plan.seed,
            config=plan.config.model_dump(mode="json"),
            original=None if original is None else model_name(original),
            retrained=None if reference is None else model_name(reference),
            data=dict(plan.prints),
            roles=dict(measured.roles),
            scores=measured.scores,
            aggregates=measured.aggregates,
            kinds=count_kinds(measured.kinds, measured.roles),
            warnings=[*warnings, *answer_warnings(plan.sets, measured)],
            seconds=round(time.perf_counter() - start, 3),
        )
        results.append(Evaluated(record, measured))
    return results


class _Evaluator:
    """Measures models alike and one at a time; every chat template gets the same date."""

    def __init__(self, plan: EvaluationPlan, tokenizer: Any, progress: Progress) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._progress = progress
        self._metrics = load_metrics(plan.config)
        self._labeller = Labeller(plan.config.kinds)
        self._options = dict(plan.model_config)
        self._announced = False
        self._reference: Reference | None = None
        self._before: Measured | None = None

    def load(self, given: Any) -> LanguageModel:
        """A model by name, or a loaded network."""
        model = read_model(given, self._tokenizer, self._options, self._progress)
        if model.encoder.date is not None:
            self._options.setdefault("date", model.encoder.date)
        return model

    def use_reference(self, reference: Any) -> None:
        """Compare models with a retrained one from now on, or with the file of its values."""
        if is_reference_file(reference):
            file = read_reference(Path(reference))
            file.check(self._plan.sets, str(reference))
            self._reference = Reference(file.set_values)
        elif reference is not None:
            found = self._measure(self.load(reference), reference, "measuring reference", is_reference=True)
            self._reference = Reference(found.set_values, found.evidence)

    def use_original(self, original: Any) -> Measured:
        """Compare models with the one before unlearning from now on."""
        options = {"is_original": True, "reference": self._reference}
        self._before = self._measure(self.load(original), original, "measuring original", **options)
        return self._before

    def evaluate(self, given: Any, label: str, lm_eval: Sequence[str], command: str) -> tuple[Measured, dict[str, Any]]:
        """Measure one model, with tasks of EleutherAI's harness besides; also what its record says of the model."""
        model = self.load(given)
        evidence = None if self._before is None else self._before.evidence
        measured = self._measure(model, given, label, original=evidence, reference=self._reference)
        if lm_eval:
            measured.scores.update(harness_scores(model, lm_eval, self._plan.seed))
        return measured, {
            "model": model.source,
            "sha256": model.fingerprint(),
            "prompting": model.encoder.prompting(),
            "provenance": provenance(command, *model.machine),
        }

    def _measure(self, model: LanguageModel, given: Any, label: str, **options: Any) -> Measured:
        plan = self._plan
        if not self._announced:
            say_all(self._progress, plan.summaries)
            self._announced = True
        if not plan.sets:
            return Measured({}, {}, {}, {}, {})
        common = plan.sets, self._metrics, self._labeller, plan.config, plan.seed, self._progress
        return measure(model, *common, label, remember=not is_loaded(given), **options)


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
