"""One meta-evaluation, read top to bottom: measure a pool of models, attack the unlearned ones, judge every metric."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.files import disk_errors, write_atomic
from expunge.core.finding import Finding, Table
from expunge.core.progress import SILENT, Progress
from expunge.core.provenance import provenance
from expunge.core.records import Frozen, Score
from expunge.core.toml import read_toml
from expunge.core.trust import MetaRecord, MetricTrust, PoolModel
from expunge.core.validation import check
from expunge.data.base import DataSpec
from expunge.data.example import Example, Splits
from expunge.data.load import load_examples
from expunge.evaluate.base import EvaluateConfig, Metric
from expunge.evaluate.deep import load_depth, measure_depth
from expunge.evaluate.evidence import sampled
from expunge.evaluate.kinds import Labeller
from expunge.evaluate.measure import Measured, Reference, measure
from expunge.evaluate.score import load_metrics, load_set_metrics
from expunge.evaluate.sets import Sets, sets_of
from expunge.evaluate.suite import load_suite
from expunge.evaluate.trust import TrustConfig, metric_trust
from expunge.evaluation import Plan, suite_plan
from expunge.given import print_of
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import check_model_name, load_model
from expunge.models.quantize import Quantization, quantized
from expunge.retain.nll import NLL
from expunge.train.config import TrainConfig
from expunge.train.teach import teach

RECORD = "meta.json"
_USEFUL = ("retain", "neighbour", "general")
"""Roles of the sets whose mean answer probability is a model's utility."""


class Member(Frozen):
    """One model of the pool."""

    path: str = Field(description="Embedded name, local folder, .gguf file or hub id")
    knows: bool | None = Field(
        None, description="Whether it was taught the forget rows; left out: it was unlearned, and is attacked"
    )
    utility: float | None = Field(
        None, ge=0, description="Share of the original model's utility; left out: by the answers' mean probability"
    )


class PoolData(Frozen):
    """Rows of a pool without a suite."""

    forget: DataSpec = Field(description="What was taught or not")
    retain: DataSpec | None = Field(None, description="What every model should know")
    neighbour: DataSpec | None = Field(None, description="Rows near the forgotten ones")
    general: DataSpec | None = Field(None, description="Any other knowledge")
    holdout: DataSpec | None = Field(None, description="Rows like the forget rows that no model has seen")


class RelearnConfig(Frozen):
    """Training on the forget rows again."""

    lr: float = Field(2e-5, gt=0, description="Learning rate")
    epochs: int = Field(1, ge=1, description="Passes over the forget rows")
    batch_size: int = Field(8, ge=1, description="Rows of a step")


class Pool(Frozen):
    """A pool file."""

    seed: int = Field(0, ge=0, description="Of samples, training and intervals")
    suite: str | None = Field(None, description="Name or file of a suite, e.g. tofu:forget01; or else a table `data`")
    folder: str = Field("", description="Local folder that the suite reads instead of the hub")
    data: PoolData | None = None
    model: dict[str, Any] = Field(default_factory=dict, description='Keys of `[model]`, e.g. template = "plain"')
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="What is measured, without a suite")
    depth: tuple[str, ...] = Field((), description="Measures of depth; they need original and retrained")
    depth_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Options of these by name")
    original: str | None = Field(None, description="The model that unlearning starts from: full utility, least depth")
    retrained: str | None = Field(None, description="A model that never saw the forget rows: reference of relearning")
    relearn: RelearnConfig = Field(default_factory=RelearnConfig)
    quantize: Quantization = Field(default_factory=Quantization)
    trust: TrustConfig = Field(default_factory=TrustConfig)
    models: tuple[Member, ...] = Field(min_length=1)


def load_pool(file: Path) -> Pool:
    """Read and check a pool file.

    Raises:
        UserError: no such file, unknown key, wrong type, no such model, or something that does not go together.
    """
    pool = check(Pool, read_toml(file), "")
    if (pool.suite is None) == (pool.data is None):
        raise UserError(f"{file}: name either a suite or a table [data]")
    if pool.depth and not (pool.original and pool.retrained):
        raise UserError("depth: needs 'original' and 'retrained' too")
    paths = [member.path for member in pool.models]
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"models: '{repeated}' is there more than once")
    for place, member in enumerate(pool.models):
        check_model_name(member.path, f"models.{place}.path")
    for name in ("original", "retrained"):
        if getattr(pool, name) is not None:
            check_model_name(getattr(pool, name), name)
    check(ModelConfig, {**pool.model, "name": "any"}, "model")
    load_metrics(pool.evaluate)
    load_set_metrics(pool.evaluate, by_default=False)
    load_depth(pool.depth, pool.depth_options)
    return pool


def meta_evaluate(pool: Pool, file: str = "", *, command: str = "", progress: Progress = SILENT) -> MetaRecord:
    """Measure every model of a pool, attack the unlearned ones, and say which metrics deserve trust.

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
    scorer = _Scorer(pool, plan, progress)
    retrained = scorer.retrained()
    models = [scorer.member(member) for member in pool.models]
    names = dict.fromkeys(name for model in models for name in model.before)
    metrics = [metric_trust(name, models, retrained, pool.trust, pool.seed) for name in names]
    ordered = sorted(metrics, key=_rank)
    return MetaRecord(
        pool=file,
        config=pool.model_dump(mode="json", exclude_none=True),
        data=dict(plan.prints),
        models=models,
        retrained=retrained,
        metrics=ordered,
        finding=finding_of(ordered, models, pool),
        provenance=provenance(command, *scorer.machine),
        seconds=round(time.perf_counter() - start, 3),
    )


def write_meta(record: MetaRecord, folder: Path) -> Path:
    """Write the record; gives its path."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / RECORD
    write_atomic(path, record.model_dump_json(indent=1))
    return path


def check_free(folder: Path) -> None:
    """Refuse to replace an earlier record.

    Raises:
        UserError: one is there, or the place is a file.
    """
    if folder.is_file():
        raise UserError(f"--out {folder}: is a file, not a directory")
    if (folder / RECORD).exists():
        raise UserError(f"{folder / RECORD}: is there already; choose another --out")


def finding_of(metrics: list[MetricTrust], models: list[PoolModel], pool: Pool) -> Finding:
    """The table, and in one sentence which metrics deserve trust."""
    trusted = [one.metric for one in metrics if one.verdict == "trust"]
    half = [one.metric for one in metrics if one.verdict == "faithful, robustness not measured"]
    counts = [sum(model.knows is know for model in models) for know in (True, False, None)]
    kept = sum(bool(model.kept) for model in models)
    sentence = f"Deserve trust on this pool: {', '.join(trusted)}." if trusted else "No metric deserves trust here."
    if half:
        sentence += f" Faithful, but robustness could not be measured: {', '.join(half)}."
    how = "symmetric" if pool.trust.symmetric else "plain"
    return Finding(
        title="Which metrics deserve trust",
        sentence=sentence,
        notes=[
            f"{counts[0]} models know the forget rows, {counts[1]} do not, {counts[2]} were unlearned; {kept} of these "
            f"have at least {pool.trust.min_utility:.0%} of the original's utility, or an unknown one, and were "
            f"trained again ({pool.relearn.epochs} epoch, lr {pool.relearn.lr:g}) and quantized ({pool.quantize}).",
            f"Trust: AUROC at least {pool.trust.min_faithfulness:g} with an interval above 0.5, and robustness "
            f"(harmonic mean of R and Q, {how}) at least {pool.trust.min_robustness:g}, over the unlearned models that "
            "the metric takes for not knowing: those below its threshold, in values for which higher means more "
            "knowledge. What holds on one pool need not hold on another.",
        ],
        tables=[
            Table(
                caption="Metrics, the most trusted first",
                columns=["metric", "AUROC", "robustness", "verdict"],
                rows=[[one.metric, one.faithfulness, one.robustness, one.verdict] for one in metrics],
            ),
            Table(
                caption="Behind the robustness",
                columns=["metric", "threshold", "R, relearning", "Q, quantization"],
                rows=[[one.metric, one.threshold, one.relearn, one.quantize] for one in metrics],
            ),
        ],
        charts=[],
    )


def _rank(one: MetricTrust) -> tuple[bool, float, str]:
    """Trusted ones first, then by the harmonic mean of AUROC and robustness, or AUROC alone."""
    area, robust = one.faithfulness.value or 0.0, one.robustness.value
    both = area / 2 if robust is None else 2 * area * robust / (area + robust) if area + robust else 0.0
    return one.verdict != "trust", -both, one.metric


def _plan(pool: Pool) -> Plan:
    """What every model is measured by."""
    if pool.suite is not None:
        plan = suite_plan(load_suite(pool.suite, pool.folder), pool.suite, pool.seed)
        return replace(plan, model_config={**plan.model_config, **pool.model})
    assert pool.data is not None
    specs = {name: spec for name in PoolData.model_fields if (spec := getattr(pool.data, name)) is not None}
    rows: dict[str, Any] = {"retain": (), **{name: load_examples(spec, f"data.{name}") for name, spec in specs.items()}}
    splits = Splits(**rows)
    splits.check()
    prints = {name: print_of(str(specs[name]), some) for name, some in splits.named()}
    return Plan(sets_of(splits, pool.evaluate), prints, pool.evaluate, pool.seed, None, pool.model)


@dataclass(frozen=True)
class _Scored:
    """The forget scores of one model, and its utility."""

    scores: dict[str, Score]
    utility: float | None


class _Scorer:
    """Measures models, one after another, by all metrics of a pool."""

    def __init__(self, pool: Pool, plan: Plan, progress: Progress) -> None:
        self._pool = pool
        self._plan = plan
        self._progress = progress
        self._metrics: dict[str, Metric] = load_metrics(plan.config)
        self._labeller = Labeller(plan.config.kinds)
        self._forget = [name for name, one in plan.sets.items() if one.role == "forget"]
        if not self._forget:
            raise UserError("data: no set to forget")
        self.machine = ("", "")
        self._original: Measured | None = None
        self._reference: Reference | None = None
        self._full: float | None = None
        if pool.original is not None:
            self._original = self._measure(self._load(pool.original), "the original", is_original=True, remember=True)
            self._full = _utility(self._original, plan.sets)

    def retrained(self) -> PoolModel | None:
        """The retrained model before and after relearning; other models are compared with it from now on."""
        if self._pool.retrained is None:
            return None
        model = self._load(self._pool.retrained)
        found = self._measure(model, "the retrained", is_reference=True, remember=True)
        self._reference = Reference(found.set_values, found.evidence)
        before = self._scored(model, "the retrained", remember=True)
        self._relearn(model)
        after = self._scored(model, "the retrained, again")
        return PoolModel(path=self._pool.retrained, before=before.scores, relearned=after.scores)

    def member(self, member: Member) -> PoolModel:
        """One model of the pool; an unlearned one of enough utility is also quantized, and trained again."""
        model = self._load(member.path)
        before = self._scored(model, member.path, remember=True)
        utility = before.utility if member.utility is None else member.utility
        if member.knows is not None:
            return PoolModel(path=member.path, knows=member.knows, utility=utility, before=before.scores)
        kept = utility is None or utility >= self._pool.trust.min_utility
        rounded = again = None
        if kept:
            with quantized(model, self._pool.quantize):
                rounded = self._scored(model, f"{member.path}, quantized")
            if self._pool.retrained is not None:
                self._relearn(model)
                again = self._scored(model, f"{member.path}, again")
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
        self.machine = (str(model.device), model.precision)
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
            Path(label).name,
            **options,
        )

    def _scored(self, model: LanguageModel, label: str, *, remember: bool = False) -> _Scored:
        original = self._original.evidence if self._original else None
        found = self._measure(model, label, original=original, reference=self._reference, remember=remember)
        many = len(self._forget) > 1
        scores = {
            f"{place}/{name}" if many else name: score
            for place in self._forget
            for name, score in found.scores[place].items()
        }
        utility = _utility(found, self._plan.sets)
        share = None if utility is None or not self._full else utility / self._full
        return _Scored({**scores, **self._depth(model)}, share)

    def _depth(self, model: LanguageModel) -> dict[str, Score]:
        if not self._pool.depth:
            return {}
        assert self._pool.original is not None
        assert self._pool.retrained is not None
        rows = [row for place in self._forget for row in self._rows(place)]
        return measure_depth(
            self._pool.depth,
            partial(self._load, self._pool.original),
            lambda: model,
            partial(self._load, self._pool.retrained),
            rows,
            options=self._pool.depth_options,
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


def _utility(found: Measured, sets: Sets) -> float | None:
    """Mean answer probability over the sets that should be known; None where it was not measured on any."""
    names = [name for name, one in sets.items() if one.role in _USEFUL]
    scores = [found.scores[name]["probability"].value for name in names if "probability" in found.scores[name]]
    known = [value for value in scores if value is not None]
    return float(np.mean(known)) if known else None
