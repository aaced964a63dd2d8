"""Conflict: angles between forget and retain gradients during training (arXiv:2502.01472)."""

from __future__ import annotations

from expunge.core.report_section import Mark, ReportSection, Table
from expunge.diagnose._charts import logged, require
from expunge.diagnose.base import Diagnostic, DiagnosticContext

_COSINES = {
    "gradient_cosine": "of the two gradients",
    "projected_gradient_cosine": "of the projected forget gradient and the retain gradient",
    "step_forget_cosine": "of the step and the forget gradient",
    "step_retain_cosine": "of the step and the retain gradient",
}
_SHARE = {"gradient_conflict": "tensors in conflict"}


class Conflict(Diagnostic):
    """Cosines before and after the combination rule, and the share of weight tensors with a negative one.

    `orthogonal` and `null_space` log them by default, `weighted_sum` with `combine.watch_conflict = true`. Models are
    not loaded.
    """

    def measure(self, context: DiagnosticContext) -> ReportSection:
        """Read the training log.

        Raises:
            UserError: there is no run, or its rule logged no cosines.
        """
        charts = require(
            [
                logged(context.steps, _COSINES, "Cosines", "cosine", [Mark(text="orthogonal", axis="y", at=0)]),
                logged(context.steps, _SHARE, "Share of tensors in conflict", "share"),
            ],
            "conflict",
            "set combine.watch_conflict=true, or use the rules orthogonal or null_space",
        )
        lines = {one.name: one.y for chart in charts for one in chart.series}
        means = {name: sum(values) / len(values) for name, values in lines.items()}
        cosines = lines.get(_COSINES["gradient_cosine"], [])
        negative = sum(value < 0 for value in cosines)
        return ReportSection(
            title="Gradient conflict",
            sentence=f"The gradients pulled against each other in {negative} of {len(cosines)} steps; means over the "
            f"run: {', '.join(f'{name} {value:.2f}' for name, value in means.items())}.",
            notes=[
                "At the first step a retain loss on hidden states has no gradient yet: its cosine is rounding noise."
            ],
            tables=[
                Table(
                    caption="Means over the steps", columns=["what", "mean"], rows=[[*pair] for pair in means.items()]
                )
            ],
            charts=charts,
        )
