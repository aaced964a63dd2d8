"""Forget quality: do the truth ratios look like a retrained model's? A KS test's p-value (arXiv:2401.06121)."""

from __future__ import annotations

import math

from expunge.core.records import Score
from expunge.evaluate.base import SetMetric, SetValues, rows_of

_ROWS = "raw_truth_ratio"


class ForgetQuality(SetMetric):
    """Two-sided Kolmogorov-Smirnov test of the forget rows' p(wrong) / p(right), model against retrained model.

    Near 1 the two cannot be distinguished by it. The p-value falls with the number of rows: compare equal numbers only.
    """

    meaning = "p-value that the truth ratios are a retrained model's; near 1 they cannot be told apart."
    needs_values = (_ROWS,)

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """`forget_quality` in [0, 1] and `log10_forget_quality`, at most 0."""
        from scipy.stats import ks_2samp

        mine, theirs = (rows_of(some, "forget", _ROWS).numbers for some in (values, reference))
        reason = None
        if not len(mine):
            reason = f"no forget rows with {_ROWS}"
        elif not len(theirs):
            reason = "retrained reference: not given" if reference is None else f"retrained reference: no {_ROWS}"
        if reason is not None:
            absent = Score(value=None, better="higher", reference="retrained", reason=reason)
            return {"forget_quality": absent, "log10_forget_quality": absent}
        p = float(ks_2samp(mine, theirs).pvalue)
        quality = Score(value=p, n=len(mine), better="higher", reference="retrained")
        logarithm = {"value": math.log10(p)} if p > 0 else {"value": None, "reason": "the p-value is 0 to the last bit"}
        return {"forget_quality": quality, "log10_forget_quality": quality.model_copy(update=logarithm)}
