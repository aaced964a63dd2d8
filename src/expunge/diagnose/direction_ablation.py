"""Direction ablation: does removing the steered direction restore the knowledge? (arXiv:2409.18025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Score
from expunge.core.report_section import Cell, ReportSection, Table
from expunge.data.generator import named_generator
from expunge.diagnose._charts import bars
from expunge.diagnose._states import row_states
from expunge.diagnose.base import Diagnostic, DiagnosticContext, Rows
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect
from expunge.evaluate.items import Values
from expunge.evaluate.rowwise import recovered
from expunge.evaluate.score import item_values, load_metrics, needs_of, score, units_of
from expunge.losses.activations import Scope
from expunge.losses.steering import mean_shifts
from expunge.models.base import LanguageModel
from expunge.models.sites import ablated
from expunge.numerics.intervals import Clusters

METRICS = ("keyword_recall", "probability")
SAVED, SHIFT, RANDOM = "no saved direction", "no mean shift", "no random direction"
_COLUMNS = ["rows", "measure", "model", "score", "share recovered"]


class DirectionAblation(Diagnostic):
    """Answers of the unlearned model when a direction is projected out of the output of one block.

    Three directions: the one that the run saved, the mean change of the forget rows' states relative to the original
    model, and a random one as a control. Directions of several topics are removed together.
    """

    compares = True

    class Config(Diagnostic.Config):
        """Options of the directions and of the generation."""

        layer: int | None = Field(
            None,
            description="Block whose output is changed, negative from the end. Default: where the run steered, "
            "or 0.23 of the depth",
        )
        tokens: Scope = Field(
            "own", description="Tokens of the mean change: all; own: without a shared opening; answer"
        )
        max_new_tokens: int = Field(64, ge=1, description="Maximum answer length, in tokens")

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Scores of both models and of each ablation, and the share of the loss that each ablation recovers.

        Raises:
            UserError: no such layer.
        """
        ask = EvaluateConfig(metrics=METRICS, max_new_tokens=self.config.max_new_tokens, max_rows=self.config.max_rows)
        metrics = load_metrics(ask)
        values: dict[str, Values] = {}
        units: dict[str, Clusters] = {}

        def evaluate(model: LanguageModel, rows: Rows, condition: str) -> None:
            evidence = collect(model, rows, needs_of(metrics), ask, context.seed, context.progress, condition)
            values[condition] = item_values(evidence, metrics)
            units.update(units_of(evidence))

        def states(model: LanguageModel, rows: Rows) -> tuple[int, Tensor]:
            layer = context.layer(model, self.config.layer, self.name)
            return layer, row_states(model, rows["forget"], layer, self.config.tokens)

        def on_original(model: LanguageModel, rows: Rows) -> tuple[int, Tensor]:
            evaluate(model, rows, "original")
            return states(model, rows)

        layer, before = context.on("original", on_original)

        def on_unlearned(model: LanguageModel, rows: Rows) -> None:
            evaluate(model, rows, "unlearned")
            moved = states(model, rows)[1] - before
            for condition, directions in _directions(context, moved, [row.topic for row in rows["forget"]]).items():
                with ablated(model, layer, directions):
                    evaluate(model, rows, condition)

        context.on("unlearned", on_unlearned)
        scores = {condition: score(found, metrics, context.seed, units=units) for condition, found in values.items()}
        shares = {
            (split, metric): _shares(
                [found[split][metric] for found in values.values()], [*values], context.seed, units[split]
            )
            for split in values["original"]
            for metric in METRICS
        }
        rows: list[list[Cell]] = [
            [split, metric, condition, scores[condition][split][metric], found.get(condition)]
            for (split, metric), found in shares.items()
            for condition in values
        ]
        return ReportSection(
            title="Direction ablation",
            sentence=_sentence(layer, shares),
            notes=[
                "The mean shift is taken from the same forget rows that are asked: an upper bound, for an adversary who"
                " holds both models.",
                "Where an ablation lowers the retain rows too, it takes away more than the steering.",
                *([] if SAVED in values else ["The run saved no direction that it steered to."]),
                *([] if SHIFT in values else [f"No state of the forget rows moved at block {layer}."]),
            ],
            tables=[Table(caption=f"Answers without a direction of block {layer}", columns=_COLUMNS, rows=rows)],
            charts=[chart for metric in METRICS if (chart := bars(metric, scores)).series],
        )


def _directions(context: DiagnosticContext, moved: Tensor, topics: Sequence[str | None]) -> dict[str, Tensor]:
    """Condition -> (K, D) directions to remove: one per topic, or a random one."""
    found = {}
    if saved := context.saved_directions():
        found[SAVED] = torch.stack([*saved.values()])
    if len(shifts := mean_shifts(moved, topics)):
        found[SHIFT] = shifts
    found[RANDOM] = torch.randn(1, moved.shape[1], generator=named_generator(f"{context.seed}/ablation"))
    return found


def _shares(
    values: Sequence[Sequence[float | str]], conditions: Sequence[str], seed: int, units: Clusters
) -> dict[str, Score]:
    """Share recovered by each ablation; values are of the original model, the unlearned one, then each ablation."""
    original, unlearned, *others = values
    changed = zip(conditions[2:], others, strict=True)
    return {condition: recovered(original, unlearned, found, seed, units) for condition, found in changed}


def _sentence(layer: int, shares: Mapping[tuple[str, str], Mapping[str, Score]]) -> str:
    """Share recovered by each ablation on the forget rows, for the first metric that has one."""
    for metric in METRICS:
        found = shares["forget", metric]
        clauses = [
            f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}] with {condition}"
            for condition, share in found.items()
            if share.value is not None
        ]
        if clauses:
            measure = metric.replace("_", " ")
            return f"Of the {measure} that the forget rows lost, this is back at block {layer}: {', '.join(clauses)}."
    reasons = dict.fromkeys(share.reason for metric in METRICS for share in shares["forget", metric].values())
    return f"There is nothing to recover on the forget rows: {'; '.join(filter(None, reasons))}."
