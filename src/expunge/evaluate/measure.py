"""One model measured once: evidence, a number for each row, scores and aggregates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from expunge.core.progress import SILENT, Progress
from expunge.core.records import Aggregates, Scores
from expunge.data.example import Splits
from expunge.evaluate.base import EvaluateConfig, Metric
from expunge.evaluate.evidence import Evidence, collect, sample_rows, with_original
from expunge.evaluate.items import Values
from expunge.evaluate.kinds import Kinds, Labeller
from expunge.evaluate.score import item_values, needs_of, score
from expunge.evaluate.summary import summarise
from expunge.models.base import LanguageModel


@dataclass(frozen=True)
class Measured:
    """What one model knew at one moment."""

    evidence: Evidence
    values: Values
    kinds: Kinds
    scores: Scores
    aggregates: Aggregates


def measure(
    model: LanguageModel,
    splits: Splits,
    metrics: Mapping[str, Metric],
    labeller: Labeller,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
    label: str = "measuring",
    *,
    is_original: bool = False,
    original: Evidence | None = None,
) -> Measured:
    """Ask a model what the metrics need, and score its answers.

    Args:
        model: any model.
        splits: rows; large splits are sampled by the seed.
        metrics: by name.
        labeller: of kinds of answer.
        config: what is asked.
        seed: of samples and intervals.
        progress: where to report.
        label: what to call this pass there.
        is_original: whether a run starts from this model, so that its answers are what others are compared with.
        original: what that model said about the same rows.
    """
    metrics = dict(metrics)
    rows = sample_rows(splits, config.max_rows, seed)
    evidence = collect(model, rows, needs_of(metrics), config, seed, progress, label)
    if is_original or original:
        evidence = with_original(evidence, original or evidence)
    values = item_values(evidence, metrics)
    scores = score(values, metrics, seed)
    return Measured(evidence, values, labeller.label(evidence), scores, summarise(values, scores, seed))
