"""Entanglement: block by block, how well forget and retain activations can be told apart (arXiv:2502.01472)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import LayerCurve
from expunge.core.report_section import Cell, Chart, ReportSection, Series, Table
from expunge.data.splits import Splits
from expunge.diagnose.base import Diagnostic, DiagnosticContext, Rows
from expunge.localize.mutual_information import MutualInformation
from expunge.models.base import LanguageModel


class Entanglement(Diagnostic):
    """The evidence of the localizer `mutual_information`, of the original and of the unlearned model.

    Jensen-Shannon divergence of the two sets' activations, the AUC of a linear probe, the cosine of their principal
    subspaces and, if asked for, of their gradients.
    """

    class Config(Diagnostic.Config):
        """How it is estimated."""

        components: int = Field(1, ge=1, description="Principal components; each needs ten rows of both kinds")
        gradient_cosine: bool = Field(False, description="The cosine of both sets' gradients too: a backward pass")

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """One value for each block, measure and model.

        Raises:
            UserError: too few rows, or activations that cannot be compared.
        """
        options = self.config.model_dump(include={"components", "gradient_cosine"})
        localizer = MutualInformation(MutualInformation.Config(**options))

        def look(model: LanguageModel, rows: Rows) -> tuple[LayerCurve, ...]:
            splits = Splits(tuple(rows["forget"]), tuple(rows.get("retain", ())))
            return localizer.select(model, splits, context.seed).curves

        found = {stage: context.on(stage, look) for stage in context.stages}
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
