"""Noise sensitivity: how strongly noise in one block's output changes the blocks above (arXiv:2408.06223)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from scipy.stats import spearmanr

from expunge.core.errors import UserError
from expunge.core.report_section import Chart, ReportSection, Series
from expunge.data.generator import named_generator
from expunge.diagnose._charts import table_of
from expunge.diagnose._length import HEURISTIC, lengths
from expunge.diagnose._noise import Profile, profile
from expunge.diagnose.base import Diagnostic, DiagnosticContext, Rows, Stage
from expunge.losses.activations import Scope
from expunge.models.base import LanguageModel
from expunge.numerics.intervals import Numbers, mean_band

_CLEAR = 0.5
"""Smallest rank correlation that is reported as a trend over blocks."""
_FEWEST = 4
"""Smallest number of blocks for which a trend is reported."""


class NoiseSensitivity(Diagnostic):
    """Squared change of a block's output relative to its squared norm, for one seeded noise vector on the forget rows.

    The paper specifies neither the noise nor the averaging over tokens. Here the noise is isotropic, its length is a
    share of the mean state's norm, and it is added at every token; the ratio is computed per token and averaged over
    each row, then over rows. `mean_vector` instead feeds the mean state as a sequence of one token, and derives the
    length c* of the steering target in the paper's linearised model, which serves to compare layers.
    """

    class Config(Diagnostic.Config):
        """Options of the noise."""

        mode: Literal["sequence", "mean_vector"] = Field(
            "sequence", description="Noise in the states of whole rows, or in their mean as a single token"
        )
        layer: int | None = Field(
            None,
            description="Block whose output is perturbed, negative from the end. Default: where the run steered, "
            "or 0.23 of the depth",
        )
        scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
            (0.1, 0.5, 1.0), min_length=1, description="Lengths of the noise, relative to the norm of the mean state"
        )
        tokens: Scope = Field("own", description="Tokens that count: all; own: without a shared opening; answer")

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Profiles of every model of the context.

        Raises:
            UserError: no such layer, or none above it.
        """

        def measure_one(model: LanguageModel, rows: Rows) -> Profile:
            layer = context.layer(model, self.config.layer, self.name)
            if layer == len(model.blocks()) - 1:
                raise UserError(f"{self.name}.layer: there is no block above layer {layer}")
            width = int(model.base.config.get_text_config().hidden_size)
            noise = torch.randn(width, generator=named_generator(f"{context.seed}/noise"))
            directions = context.directions(width) if self.config.mode == "mean_vector" else None
            with context.progress.bar("adding noise", len(rows["forget"])) as bar:
                return profile(
                    model,
                    rows["forget"],
                    layer,
                    self.config.tokens,
                    noise / noise.norm(),
                    self.config.scales,
                    directions,
                    bar,
                )

        profiles = {stage: context.on(stage, measure_one) for stage in context.stages}
        layer = profiles["original"].layer
        title, beside = f"Noise in block {layer}, seen above", "Noise in each block, seen at the next"
        charts = [
            self._chart(title, layer + 1, {stage: one.through for stage, one in profiles.items()}, context.seed),
            self._chart(beside, 1, {stage: one.local for stage, one in profiles.items()}, context.seed),
        ]
        if self.config.mode == "mean_vector":
            charts.append(_lengths(profiles, context))
        return ReportSection(
            title="Noise sensitivity",
            sentence=self._sentence(profiles),
            notes=[
                "The noise is one seeded isotropic vector; intervals are over rows, not over draws of the noise.",
                *([HEURISTIC] if self.config.mode == "mean_vector" else []),
            ],
            tables=[table_of(chart, "block", len(profiles["original"].through)) for chart in charts],
            charts=charts,
        )

    def _chart(self, title: str, first: int, values: dict[Stage, Numbers], seed: int) -> Chart:
        """Values (R, S, K) of each model at the K blocks from `first` on."""
        series = []
        for stage, found in values.items():
            mean, low, high = (part.tolist() for part in mean_band(found, seed))
            for place, scale in enumerate(self.config.scales):
                series.append(
                    Series(
                        name=f"{stage}, {scale:g}",
                        x=[float(first + block) for block in range(found.shape[-1])],
                        y=mean[place],
                        low=low[place] if len(found) > 1 else [],
                        high=high[place] if len(found) > 1 else [],
                        tone=stage,
                        weight=place,
                    )
                )
        return Chart(
            title=title,
            caption=f"Mode {self.config.mode}. A line for each length of the noise, in norms of the mean state; "
            "blocks count from 0.",
            across="block",
            up="squared relative change",
            style="line",
            series=series,
            log=True,
        )

    def _sentence(self, profiles: dict[Stage, Profile]) -> str:
        place = len(self.config.scales) // 2
        layer = profiles["original"].layer
        clauses = []
        for stage, found in profiles.items():
            ends = found.through.mean(0)[place]
            trend = _trend(found.local.mean(0)[place])
            clauses.append(
                f"in the {stage} model the next block's output changes by {ends[0]:.2g} of its squared norm and the "
                f"last block's by {ends[-1]:.2g}, and block by block the sensitivity {trend}"
            )
        scale = self.config.scales[place]
        return f"With noise of {scale:g} of the mean state's norm in block {layer}: {'; '.join(clauses)}."


def _lengths(profiles: dict[Stage, Profile], context: DiagnosticContext) -> Chart:
    coefficients = {stage: found.coefficients for stage, found in profiles.items()}
    norms = {stage: found.token_norm for stage, found in profiles.items()}
    return lengths(coefficients, norms, profiles["original"].layer, context)


def _trend(values: Numbers) -> str:
    """The trend by rank correlation, in words."""
    if len(values) < _FEWEST:
        return "has too few blocks for a trend"
    correlation = float(spearmanr(range(len(values)), values).statistic)
    if abs(correlation) < _CLEAR:
        return "has no trend"
    return "falls with depth" if correlation < 0 else "rises with depth"
