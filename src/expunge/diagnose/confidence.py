"""Confidence: how certain a model is of the tokens that it generates (arXiv:2408.06223)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy.stats import ks_2samp, wasserstein_distance
from torch import Tensor

from expunge.core.progress import Bar
from expunge.core.report_section import Cell, Chart, ReportSection, Table
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.diagnose._charts import box, five
from expunge.diagnose.base import Diagnostic, DiagnosticContext, Rows
from expunge.models.base import LanguageModel
from expunge.models.continuations import continued
from expunge.models.forward import score_each
from expunge.numerics.intervals import Numbers
from expunge.numerics.token import prediction


class ConfidenceMeasure(NamedTuple):
    """A measure with one number per generated token."""

    name: str
    unit: str


QUANTITIES = (
    ConfidenceMeasure("MaxLogit", "largest logit"),
    ConfidenceMeasure("max probability", "probability of the likeliest token"),
    ConfidenceMeasure("entropy", "entropy of the next-token distribution, nats"),
    ConfidenceMeasure("energy", "log of the summed exponentials of the logits"),
)
_COLUMNS = ["quantity", "rows", "model", "tokens", "median", "q1", "q3", "KS D", "W1"]
"""q1 and q3: quartiles; KS D and W1: Kolmogorov-Smirnov and Wasserstein-1 distance from the original's distribution."""
_Measured = dict[str, Numbers]
"""Group of rows -> (N, 4) measures of all tokens generated for it."""


class Confidence(Diagnostic):
    """Largest logit, largest probability, entropy and energy at each token of greedy answers.

    The paper uses the largest logit only, which also changes when all logits are scaled; probability and entropy
    distinguish the two. Answers end where the model ends them, at most after `max_new_tokens`.
    """

    class Config(Diagnostic.Config):
        """Options of the generation."""

        max_new_tokens: int = Field(30, ge=1, description="Maximum answer length, in tokens")

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Distributions of every model, and distances between them."""
        measured = {stage: context.on(stage, partial(self._measure_one, context)) for stage in context.stages}
        original = measured["original"]
        charts, rows = [], []
        for place, quantity in enumerate(QUANTITIES):
            boxes = [
                box(stage, {group: values[:, place] for group, values in found.items()}, stage)
                for stage, found in measured.items()
            ]
            charts.append(
                Chart(
                    title=quantity.name,
                    caption="Box: quartiles and median over generated tokens; whiskers: 5% and 95%.",
                    across="",
                    up=quantity.unit,
                    style="box",
                    series=boxes,
                )
            )
            for group, values in original.items():
                for stage, found in measured.items():
                    distances = () if stage == "original" else _distances(values[:, place], found[group][:, place])
                    rows.append(_line(quantity.name, group, stage, found[group][:, place], distances))
        clauses = [
            f"{group} {' -> '.join(f'{np.median(found[group][:, 1]):.2f}' for found in measured.values())}"
            for group in original
        ]
        return ReportSection(
            title="Confidence of generated tokens",
            sentence=f"Median probability of the model's own next token: {'; '.join(clauses)}.",
            notes=["Tokens of one answer depend on each other: read the distances as sizes, not as tests."],
            tables=[Table(caption="Quantities over all generated tokens", columns=_COLUMNS, rows=rows)],
            charts=charts,
        )

    def _measure_one(self, context: DiagnosticContext, model: LanguageModel, rows: Rows) -> _Measured:
        groups = {
            f"{split}, {topic}" if topic else split: [row for row in some if row.topic == topic]
            for split, some in rows.items()
            for topic in dict.fromkeys(row.topic for row in some)
        }
        with context.progress.bar("generating", sum(map(len, groups.values()))) as bar:
            return {group: self._quantities(model, some, bar) for group, some in groups.items()}

    @torch.no_grad()
    def _quantities(self, model: LanguageModel, rows: Sequence[Example], bar: Bar | None = None) -> Numbers:
        prompts = [model.encoder.answer_prompt(row) for row in rows]
        answers = continued(model, prompts, self.config.max_new_tokens, bar=bar)
        sequences = [Encoded((*prompt, *ids), len(prompt)) for prompt, (ids,) in zip(prompts, answers, strict=True)]
        found: dict[int, Tensor] = {}

        def keep(index: int, hidden: Tensor) -> None:
            with model.autocast():
                logits = model.head(hidden)
            found[index] = quantities(logits).cpu()

        score_each(model, sequences, True, None, keep)
        values: Numbers = torch.cat([found[index] for index in range(len(sequences))]).double().numpy()
        return values


def quantities(logits: Tensor) -> Tensor:
    """Those of `QUANTITIES`: (N, V) -> (N, 4), at least float32."""
    found = prediction(logits)
    return torch.stack([found.top_logit, found.top_logp.exp(), found.entropy, found.energy], -1)


def _distances(before: Numbers, after: Numbers) -> tuple[float, float]:
    return float(ks_2samp(before, after).statistic), float(wasserstein_distance(before, after))


def _line(quantity: str, group: str, stage: str, values: Numbers, distances: Sequence[float]) -> list[Cell]:
    _, low, median, high, _ = five(values)
    return [quantity, group, stage, len(values), median, low, high, *(distances or (None, None))]
