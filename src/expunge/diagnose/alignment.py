"""Alignment: how close hidden states are to the direction that a run steered to (arXiv:2408.06223)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy.stats import ks_2samp
from torch import Tensor

from expunge.core.report_section import Cell, Chart, Mark, ReportSection, Table
from expunge.diagnose._charts import five, histograms
from expunge.diagnose._states import row_states
from expunge.diagnose.base import Diagnostic, DiagnosticContext, Rows, Stage
from expunge.losses.activations import Scope, cosine
from expunge.models.base import LanguageModel
from expunge.numerics.intervals import Numbers

_BAND = 1.96
"""Standard deviations on either side that hold 95% of a normal distribution."""
_COLUMNS = ["rows", "model", "n", "median", "q1", "q3", "null", "above null", "KS D"]
"""q1 and q3: quartiles; above null: the share above the band; KS D: distance from the original's distribution."""


class Null(NamedTuple):
    """Distribution of the cosine of a state with an unrelated vector."""

    centre: float
    deviation: float


class _RowStates(NamedTuple):
    """The states of one model's rows."""

    layer: int
    states: dict[str, Tensor]
    """Split -> (R, D) mean state of each row."""
    topics: dict[str, list[str]]


class Alignment(Diagnostic):
    """Cosine of each row's mean state with the direction, for the original and the unlearned model.

    A uniformly drawn direction has no negative entry and is correlated with the all-ones vector, as hidden states often
    are, so that the cosine is not 0 without steering. The band shows the cosine for the same entries in random order.
    """

    class Config(Diagnostic.Config):
        """Options of the states."""

        layer: int | None = Field(
            None,
            description="Block to measure, negative from the end. Default: where the run steered, or 0.23 of the depth",
        )
        tokens: Scope = Field("own", description="Tokens that count: all; own: without a shared opening; answer")

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Histograms, with the band of an unrelated direction.

        Raises:
            UserError: no such layer.
        """

        def measure_one(model: LanguageModel, rows: Rows) -> _RowStates:
            layer = context.layer(model, self.config.layer, self.name)
            states = {split: row_states(model, some, layer, self.config.tokens) for split, some in rows.items()}
            return _RowStates(layer, states, {split: [row.topic or "" for row in some] for split, some in rows.items()})

        states = {stage: context.on(stage, measure_one) for stage in context.stages}
        width = states["original"].states["forget"].shape[1]
        rows: list[list[Cell]] = []
        charts, clauses = [], []
        for topic, direction in context.directions(width).items():
            for split in states["original"].states:
                cosines = {stage: _cosines(one, split, topic, direction) for stage, one in states.items()}
                if not len(cosines["original"]):
                    continue
                group = f"{split}, {topic}" if topic else split
                null = unrelated(states["original"].states[split], direction)
                charts.append(_chart(group, cosines, null))
                rows += [_line(group, stage, values, cosines["original"], null) for stage, values in cosines.items()]
                medians = " -> ".join(f"{np.median(values):.2f}" for values in cosines.values())
                clauses.append(f"{group} {medians} ({round(null.centre, 2) + 0.0:.2f} for an unrelated direction)")
        drawn = "" if context.saved_directions() else ", which was drawn and not steered to"
        return ReportSection(
            title="Alignment with the direction",
            sentence=f"Median cosine with the direction{drawn}, at block {states['original'].layer}: "
            f"{'; '.join(clauses)}.",
            notes=["A rise on retain rows is damage: what should stay is pulled to the same place."],
            tables=[Table(caption="Cosine of each row's mean state with the direction", columns=_COLUMNS, rows=rows)],
            charts=charts,
        )


def unrelated(states: Tensor, direction: Tensor) -> Null:
    """Mean and deviation of the cosine for the direction's entries in random order, averaged over rows.

    With `m` and `a` the cosines of a state and of the direction with the all-ones vector it is `a m` and
    `sqrt((1 - a^2)(1 - m^2) / (D - 1))`, exactly. A uniform draw has `a` near `sqrt(3) / 2`.

    Args:
        states: (R, D).
        direction: (D,).
    """
    ones = torch.ones_like(direction)
    m, a = cosine(states, ones), cosine(direction[None], ones)
    deviation = ((1 - a.square()) * (1 - m.square()) / (len(direction) - 1)).clamp(min=0).sqrt()
    return Null(float((a * m).mean()), float(deviation.mean()))


def _cosines(states: _RowStates, split: str, topic: str, direction: Tensor) -> Numbers:
    """Cosines of a split's rows; of the forget split, only rows of the direction's topic."""
    own = [split != "forget" or not topic or name == topic for name in states.topics[split]]
    found: Numbers = cosine(states.states[split], direction).double().numpy()[own]
    return found


def _chart(group: str, cosines: dict[Stage, Numbers], null: Null) -> Chart:
    reach = _BAND * null.deviation
    return Chart(
        title=group.capitalize(),
        caption="The band holds 95% of the cosines that the original states would have with an unrelated direction of "
        "the same make.",
        across="cosine of a row's mean state with the direction",
        up="share of rows",
        style="histogram",
        series=histograms([(stage, stage, values) for stage, values in cosines.items()]),
        marks=[Mark(text="unrelated", axis="x", at=null.centre, low=null.centre - reach, high=null.centre + reach)],
    )


def _line(group: str, stage: Stage, values: Numbers, original: Numbers, null: Null) -> list[Cell]:
    _, low, median, high, _ = five(values)
    above = float((values > null.centre + _BAND * null.deviation).mean())
    distance = None if stage == "original" else float(ks_2samp(original, values).statistic)
    return [group, stage, len(values), median, low, high, null.centre, above, distance]
