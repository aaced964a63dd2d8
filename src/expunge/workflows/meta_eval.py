"""One meta-evaluation, read top to bottom: measure a pool of models, attack the unlearned ones, judge every metric."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import UserError
from expunge.core.files import write_atomic
from expunge.core.metric_trust import MetaRecord, MetricTrust, PoolModel
from expunge.core.output_dir import adding
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import Score
from expunge.core.report_section import ReportSection, Table
from expunge.core.validation import check
from expunge.data.example import Example
from expunge.data.load import load_data
from expunge.data.splits import Splits
from expunge.data.summary import say_all, warnings_of
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.base import Metric
from expunge.evaluate.evidence import sampled
from expunge.evaluate.measure import Measured, Reference, measure
from expunge.evaluate.metric_trust import metric_trust
from expunge.evaluate.pool import Member, Pool, PoolData
from expunge.evaluate.score import load_metrics
from expunge.evaluate.sets import Sets, sets_of
from expunge.evaluate.suite import load_suite
from expunge.evaluate.validity import check_keywords, row_warnings
from expunge.evaluate.whitebox.engine import WhiteBoxSession
from expunge.inputs import print_of
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.models.quantize import quantized
from expunge.retain.nll import NLL
from expunge.train.config import TrainConfig
from expunge.train.teach import teach
from expunge.workflows.evaluate import EvaluationPlan, suite_plan

RECORD = "meta.json"
_REFERENCE = "reference"
_USEFUL = ("retain", "neighbour", "general")
"""Roles of the sets whose mean answer probability is a model's utility."""


def meta_evaluate(pool: Pool, file: str = "", *, command: str = "", progress: Progress = SILENT) -> MetaRecord:
    """Measure every model of a pool, attack the unlearned ones, and rate how far each metric can be trusted.

    Args:
        pool: models and rows.
        file: where it was read, for the record.
        command: the command line, for the record.
        progress: where to report.

    Raises:
        UserError: bad data or models.
    """
    start = time.perf_counter()
    plan = _plan(pool)
    check_keywords(plan.sets)
    understood = {name: one.understood for name, one in plan.sets.items()}
    say_all(progress, understood)
    warnings = [*warnings_of(understood), *row_warnings(plan.sets, pool.model.get("system_prompt"))]
    scorer = _Scorer(pool, plan, progress)
    retrained = scorer.retrained()
    models = [scorer.member(member) for member in pool.models]
    inside = scorer.whitebox()
    models = [_with_whitebox(model, inside, "") for model in models]
    retrained = None if retrained is None else _with_whitebox(retrained, inside, _REFERENCE)
    names = dict.fromkeys(name for model in models for name in model.before)
    metrics = [metric_trust(name, models, retrained, pool.trust, pool.seed) for name in names]
    ordered = sorted(metrics, key=_rank)
    found = finding_of(ordered, models, pool)
    return MetaRecord(
        pool=file,
        config=pool.model_dump(mode="json", exclude_none=True),
        data=dict(plan.prints),
        models=models,
        retrained=retrained,
        metrics=ordered,
        finding=found.model_copy(update={"notes": [*(f"Warning: {one}" for one in warnings), *found.notes]}),
        provenance=provenance(command, *scorer.machine),
        seconds=round(time.perf_counter() - start, 3),
    )


def write_meta(record: MetaRecord, folder: Path) -> Path:
    """Write the record; gives its path."""
    path = folder / RECORD
    with adding(folder):
        write_atomic(path, record.model_dump_json(indent=1))
    return path


def finding_of(metrics: list[MetricTrust], models: list[PoolModel], pool: Pool) -> ReportSection:
    """The table, and in one sentence which metrics deserve trust."""
    trusted = [one.metric for one in metrics if one.verdict == "trust"]
    half = [one.metric for one in metrics if one.verdict == "faithful, robustness not measured"]
    counts = [sum(model.knows is know for model in models) for know in (True, False, None)]
    kept = sum(bool(model.kept) for model in models)
    valued = [one for one in metrics if one.faithfulness.value is not None]
    without = [one.metric for one in metrics if one.faithfulness.value is None]
    sentence = f"Deserve trust on this pool: {', '.join(trusted)}." if trusted else "No metric deserves trust here."
    if half:
        sentence += f" Faithful, but robustness could not be measured: {', '.join(half)}."
    how = "symmetric" if pool.trust.symmetric else "plain"
    return ReportSection(
        title="Which metrics deserve trust",
        sentence=sentence,
        notes=[
            f"{counts[0]} models know the forget rows, {counts[1]} do not, {counts[2]} were unlearned; {kept} of these "
            f"have at least {pool.trust.min_utility:.0%} of the original's utility, or an unknown one, and were "
            f"trained again ({pool.relearn.epochs} epoch, lr {pool.relearn.lr:g}) and quantized ({pool.quantize}).",
            f"Trust: AUROC at least {pool.trust.min_faithfulness:g} with an interval above 0.5, and robustness "
            f"(harmonic mean of R and Q, {how}) at least {pool.trust.min_robustness:g}, over the unlearned models that "
            "the metric takes for not knowing: those below its threshold, in values for which higher means more "
            "knowledge. Results on one pool need not hold on another.",
            *([f"Without a value on this pool, or without a direction: {', '.join(without)}."] if without else []),
        ],
        tables=[
            Table(
                caption="Metrics, the most trusted first",
                columns=["metric", "AUROC", "robustness", "verdict"],
                rows=[[one.metric, one.faithfulness, one.robustness, one.verdict] for one in valued],
            ),
            Table(
                caption="Behind the robustness",
                columns=["metric", "threshold", "R, relearning", "Q, quantization"],
                rows=[[one.metric, one.threshold, one.relearn, one.quantize] for one in valued],
            ),
        ],
        charts=[],
    )


def _rank(one: MetricTrust) -> tuple[bool, float, str]:
    """Trusted ones first, then by the harmonic mean of AUROC and robustness, or AUROC alone."""
    area, robust = one.faithfulness.value or 0.0, one.robustness.value
    both = area / 2 if robust is None else 2 * area * robust / (area + robust) if area + robust else 0.0
    return one.verdict != "trust", -both, one.metric


def _plan(pool: Pool) -> EvaluationPlan:
    """The rows and settings that every model is measured with."""
    if pool.suite is not None:
        plan = suite_plan(load_suite(pool.suite, pool.folder), pool.suite, pool.seed)
        return replace(plan, model_config={**plan.model_config, **pool.model})
    assert pool.data is not None
    specs = {name: spec for name in PoolData.model_fields if (spec := getattr(pool.data, name)) is not None}
    loaded = {name: load_data(spec, f"data.{name}") for name, spec in specs.items()}
    rows: dict[str, Any] = {"retain": (), **{name: one.examples for name, one in loaded.items()}}
    splits = Splits(**rows, understood={name: one.understood for name, one in loaded.items()})
    splits.check()
    prints = {name: print_of(str(specs[name]), some, loaded[name].understood) for name, some in splits.named()}
    return EvaluationPlan(sets_of(splits, pool.evaluate), prints, pool.evaluate, pool.seed, None, pool.model)


@dataclass(frozen=True)
class _Scored:
    """The forget scores of one model, and its utility."""

    scores: dict[str, Score]
    utility: float | None


class _Scorer:
    """Measures models, one after another, by all metrics of a pool."""

    def __init__(self, pool: Pool, plan: EvaluationPlan, progress: Progress) -> None:
        self._pool = pool
        self._plan = plan
        self._progress = progress
        self._metrics: dict[str, Metric] = load_metrics(plan.config)
        self._labeller = Labeller(plan.config.kinds)
        self._forget = [name for name, one in plan.sets.items() if one.role == "forget"]
        if not self._forget:
            raise UserError("data: no set to forget")
        self.machine = ("", "", "")
        self._original: Measured | None = None
        self._reference: Reference | None = None
        self._full: float | None = None
        if pool.original is not None:
            self._original = self._measure(self._load(pool.original), "the original", is_original=True, remember=True)
            self._full = _utility(self._original, plan.sets)
        self._session = self._start_whitebox() if pool.whitebox else None

    def retrained(self) -> PoolModel | None:
        """The retrained model before and after relearning; other models are compared with it from now on."""
        if self._pool.retrained is None:
            return None
        model = self._load(self._pool.retrained)
        found = self._measure(model, "the retrained", is_reference=True, remember=True)
        self._reference = Reference(found.set_values, found.evidence)
        before = self._scored(model, self._pool.retrained, "before", _REFERENCE)
        self._relearn(model)
        after = self._scored(model, self._pool.retrained, "relearned", _REFERENCE)
        return PoolModel(path=self._pool.retrained, before=before.scores, relearned=after.scores)

    def member(self, member: Member) -> PoolModel:
        """One model of the pool; an unlearned one of enough utility is also quantized, and trained again."""
        model = self._load(member.path)
        before = self._scored(model, member.path, "before")
        utility = before.utility if member.utility is None else member.utility
        if member.knows is not None:
            return PoolModel(path=member.path, knows=member.knows, utility=utility, before=before.scores)
        kept = utility is None or utility >= self._pool.trust.min_utility
        rounded = again = None
        if kept:
            with quantized(model, self._pool.quantize):
                rounded = self._scored(model, member.path, "quantized")
            if self._pool.retrained is not None:
                self._relearn(model)
                again = self._scored(model, member.path, "relearned")
        return PoolModel(
            path=member.path,
            utility=utility,
            kept=kept,
            before=before.scores,
            quantized=rounded.scores if rounded else {},
            relearned=again.scores if again else {},
        )

    def _load(self, name: str) -> LanguageModel:
        config = check(ModelConfig, {**self._plan.model_config, "name": name}, "model")
        model = load_model(config, self._progress)
        self.machine = model.machine
        return model

    def _measure(self, model: LanguageModel, label: str, **options: Any) -> Measured:
        return measure(
            model,
            self._plan.sets,
            self._metrics,
            self._labeller,
            self._plan.config,
            self._plan.seed,
            self._progress,
            label,
            **options,
        )

    def _scored(self, model: LanguageModel, path: str, stage: str, group: str = "") -> _Scored:
        if self._session is not None:
            self._session.observe(model, _label(group, stage, path))
        found = self._measure(
            model,
            f"{Path(path).name}, {stage}",
            original=self._original.evidence if self._original else None,
            reference=self._reference,
            remember=stage == "before",
        )
        many = len(self._forget) > 1
        scores = {
            f"{place}/{name}" if many else name: score
            for place in self._forget
            for name, score in found.scores[place].items()
        }
        utility = _utility(found, self._plan.sets)
        return _Scored(scores, None if utility is None or not self._full else utility / self._full)

    def whitebox(self) -> dict[str, dict[str, Score]]:
        """White-box scores by label, once every model has been observed."""
        return {} if self._session is None else self._session.scores()

    def _start_whitebox(self) -> WhiteBoxSession:
        assert self._pool.original is not None
        assert self._pool.retrained is not None
        return WhiteBoxSession(
            self._pool.whitebox,
            partial(self._load, self._pool.original),
            partial(self._load, self._pool.retrained),
            [row for place in self._forget for row in self._rows(place)],
            options=self._pool.whitebox_options,
            seed=self._pool.seed,
            progress=self._progress,
        )

    def _rows(self, place: str) -> list[Example]:
        one = self._plan.sets[place]
        return sampled(one.rows, one.config.max_rows, self._pool.seed)

    def _relearn(self, model: LanguageModel) -> None:
        """Train on the forget rows; the model stays changed."""
        model.freeze_but([name for name, _ in model.network.named_parameters()])
        train = TrainConfig(**self._pool.relearn.model_dump(), checkpoints=False)
        rows = [row for place in self._forget for row in self._plan.sets[place].rows]
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            teach(model, rows, NLL(NLL.Config()), train, self._pool.seed, Path(folder), self._progress)


def _with_whitebox(model: PoolModel, inside: dict[str, dict[str, Score]], group: str) -> PoolModel:
    """The model's scores with the white-box ones."""
    stages = {stage: getattr(model, stage) for stage in ("before", "quantized", "relearned")}
    more = {stage: inside.get(_label(group, stage, model.path), {}) for stage in stages}
    return model.model_copy(update={stage: {**scores, **more[stage]} for stage, scores in stages.items()})


def _label(group: str, stage: str, path: str) -> str:
    return f"{group}/{stage}/{path}"


def _utility(found: Measured, sets: Sets) -> float | None:
    """Mean answer probability over the sets that should be known; None where it was not measured on any."""
    names = [name for name, one in sets.items() if one.role in _USEFUL]
    scores = [found.scores[name]["probability"].value for name in names if "probability" in found.scores[name]]
    known = [value for value in scores if value is not None]
    return float(np.mean(known)) if known else None
