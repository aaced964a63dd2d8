"""Relative difference: membership AUC against the retrained model's, in percent of the latter (arXiv:2407.06460)."""

from __future__ import annotations

from expunge.evaluate.set_metrics._against_retrained import AgainstRetrained
from expunge.numerics.intervals import Numbers


class RelativeDifference(AgainstRetrained):
    """`100 (A - A_retrained) / A_retrained`: OpenUnlearning's `rel_diff`. Positive: more like members than wanted."""

    score_name = "relative_difference"

    @staticmethod
    def fraction(auc: Numbers, retrained: Numbers) -> tuple[Numbers, Numbers]:
        """`A - A_retrained` and `A_retrained`."""
        return auc - retrained, retrained
