"""Membership: do losses distinguish forget rows from rows that no model has seen? (arXiv:1709.01604)."""

from __future__ import annotations

from expunge.core.records import Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.membership import sides
from expunge.numerics.intervals import percentiles

_RATE = 0.01
_PREFIX = "mia_"


class MembershipAUC(SetMetric):
    """AUC, and true-positive rate at 1% false positives, of every attack `mia_*`: forget rows against holdout rows.

    AUC 1: the forget rows are recognised as members; 0.5: they look like unseen rows, which is wanted; below: they
    stand out as over-forgotten. With fewer than 100 holdout rows no false positive at all is allowed. `mia_gradnorm`
    counts where it is measured.
    """

    needs_values = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference")
    roles = ("forget", "holdout")

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """`mia_NAME_auc` and `mia_NAME_tpr_at_1_percent`, each in [0, 1]; n counts the rows of both sides."""
        attacks = sorted({name for part in values.values() for name in part if name.startswith(_PREFIX)})
        found: dict[str, Score] = {}
        for attack in attacks:
            both = sides(values, attack)
            names = f"{attack}_auc", f"{attack}_tpr_at_1_percent"
            if isinstance(both, str):
                found |= dict.fromkeys(names, Score(value=None, reason=both))
                continue
            counts = {"n": both.num_rows, "clusters": both.clusters}
            low, high = percentiles(both.auc_draws(seed))
            found[names[0]] = Score(value=both.auc(), low=low, high=high, **counts, chance=0.5)
            low, high = percentiles(both.tpr_draws(_RATE, seed))
            rate = both.tpr(_RATE)
            found[names[1]] = Score(value=rate, low=low, high=high, **counts, better="lower", chance=_RATE)
        return found
