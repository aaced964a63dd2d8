"""Entanglement: block by block, how well forget and retain activations can be told apart (arXiv:2502.01472)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.report_section import Cell, Chart, ReportSection, Series, Table
from expunge.diagnose.base import Diagnostic, DiagnosticContext, Rows
from expunge.models.base import LanguageModel
from expunge.models.entanglement import BlockMeasure, block_measures, equal_samples, gradient_measure
from expunge.models.module_names import parameter_names

_TEXTS = 200
"""Maximum number of rows of each set, as in the localizer `mutual_information`."""


class Entanglement(Diagnostic):
    """The measures of the localizer `mutual_information`, of the original and of the unlearned model.

    Jensen-Shannon divergence of the two sets' activations, AUC of a linear probe, angle and cosine of their principal
    subspaces and, on request, cosine of their gradients.
    """

    class Config(Diagnostic.Config):
        """Options of the estimate."""

        components: int = Field(1, ge=1, description="Principal components; each needs ten rows of both sets")
        gradient_cosine: bool = Field(False, description="Also the cosine of both sets' gradients: a backward pass")

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """One value per block, measure and model.

        Raises:
            UserError: too few rows, or activations that cannot be compared.
        """

        def measure_one(model: LanguageModel, rows: Rows) -> list[BlockMeasure]:
            drawn = equal_samples(
                rows["forget"], rows.get("retain", ()), _TEXTS, self.config.components, context.seed, self.name
            )
            forget, retain = ([model.encoder.example(row) for row in some] for some in drawn)
            measures = block_measures(
                model, forget, retain, "last", "js", self.config.components, context.seed, self.name
            )
            if self.config.gradient_cosine:
                names = [parameter_names(model, [layer], ["mlp.down_proj"]) for layer in range(len(model.blocks()))]
                measures.append(gradient_measure(model, forget, retain, names))
            for one in measures:
                one.check(self.name)
            return measures

        found = {stage: context.on(stage, measure_one) for stage in context.stages}
        first = found[context.stages[0]]
        names = [f"{curve.name}, {stage}" for stage, curves in found.items() for curve in curves]
        columns = [curve.values for curves in found.values() for curve in curves]
        rows: list[list[Cell]] = [[block, *values] for block, values in enumerate(zip(*columns, strict=True))]
        apart = max(range(len(first[0].values)), key=first[0].values.__getitem__)
        return ReportSection(
            title="Layer entanglement",
            sentence=f"In the {context.stages[0]} model block {apart} tells forget from retain rows best "
            f"({first[0].name} {first[0].values[apart]:.3g}).",
            notes=["A high divergence or AUC, or a low cosine, is little entanglement."],
            tables=[Table(caption="Every block", columns=["block", *names], rows=rows)],
            charts=[
                Chart(
                    title=curve.name,
                    caption="",
                    across="block",
                    up=curve.name,
                    style="line",
                    series=[
                        Series(name=stage, x=list(range(len(curve.values))), y=curves[place].values)
                        for stage, curves in found.items()
                    ],
                )
                for place, curve in enumerate(first)
            ],
        )
