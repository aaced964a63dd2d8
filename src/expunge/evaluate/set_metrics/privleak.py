"""Privacy leak: membership AUC against that of the retrained model, 0 when they agree (arXiv:2407.06460)."""

from __future__ import annotations

from expunge.evaluate.set_metrics._against_retrained import AgainstRetrained
from expunge.numerics.intervals import Numbers


class PrivLeak(AgainstRetrained):
    """`100 ((1 - A) - (1 - A_retrained)) / (1 - A_retrained)`, A the AUC of Min-K% over forget and holdout rows.

    Negative: the forget rows still look like members (an untouched model comes near -100); positive: over-unlearned.
    MUSE writes the same with the complement of A.
    """

    score_name = "privleak"

    title = "privacy leak"
    meaning = "Membership against the retrained model's, in percent: 0 agrees, below still looks like a member."

    @staticmethod
    def fraction(auc: Numbers, retrained: Numbers) -> tuple[Numbers, Numbers]:
        """`(1 - A) - (1 - A_retrained)` and `1 - A_retrained`."""
        return retrained - auc, 1 - retrained
