"""Norms: how far hidden states went while a run trained, from what it logged (arXiv:2408.06223)."""

from __future__ import annotations

from expunge.core.report_section import Mark, ReportSection, Table
from expunge.diagnose._charts import logged, require
from expunge.diagnose.base import Diagnostic, DiagnosticContext

_NORMS = {"forget_norm": "forget", "retain_norm": "retain", "coefficient": "target length"}
_COSINES = {
    "forget_cosine_to_direction": "forget, to the direction",
    "forget_cosine_to_original": "forget, to the original",
    "forget_cosine": "forget, to the original",
    "retain_cosine": "retain, to the original",
}
_RATIOS = {"forget_norm_ratio": "forget", "retain_norm_ratio": "retain"}


class Norms(Diagnostic):
    """Trajectories of the steered layer's states: norms, ratios to the original norms, cosines.

    Each value is a mean over one batch, so that curves fluctuate with the batches. No models are loaded.
    """

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Read the training log.

        Raises:
            UserError: there is no run, or its losses do not use hidden states.
        """
        charts = require(
            [
                logged(context.steps, _NORMS, "Norms of the hidden states", "norm"),
                logged(
                    context.steps,
                    _RATIOS,
                    "Norms over the original ones",
                    "ratio",
                    [Mark(text="no change", axis="y", at=1)],
                ),
                logged(context.steps, _COSINES, "Cosines", "cosine"),
            ],
            "norms",
            "the losses of rmu, falcon and kuda log them",
        )
        rows = [[chart.title, one.name, one.y[0], one.y[-1]] for chart in charts for one in chart.series]
        clauses = [f"{name} {first:.3g} to {last:.3g}" for _, name, first, last in rows]
        return ReportSection(
            title="Norm trajectories",
            sentence=f"From the first to the last of {len(context.steps)} steps: {', '.join(clauses)}.",
            notes=["A norm that grows while only directions are steered makes the change easy to find and to undo."],
            tables=[Table(caption="First and last step", columns=["of", "states", "first", "last"], rows=rows)],
            charts=charts,
        )
