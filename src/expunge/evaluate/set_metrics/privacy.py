"""Privacy: how near each attack's AUC came to the retrained model's, from the original's (arXiv:2506.12618)."""

from __future__ import annotations

from expunge.core.records import Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.membership import sides
from expunge.numerics.intervals import percentiles

_ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")


class Privacy(SetMetric):
    """`s = 1 - |A - A_retrained| / |A_original - A_retrained|` of each attack, at least 0.

    1: as private as a model that never saw the rows; 0: as far from it as before, or farther. OpenUnlearning's
    aggregate Privacy is the harmonic mean of the four.
    """

    needs_values = tuple(f"mia_{attack}" for attack in _ATTACKS)
    needs_original = True
    roles = ("forget", "holdout")

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """`privacy_loss`, `privacy_zlib`, `privacy_min_k`, `privacy_min_k_plus_plus`, each in [0, 1]."""
        return {f"privacy_{attack}": _score(f"mia_{attack}", values, reference, original, seed) for attack in _ATTACKS}


def _score(attack: str, values: SetValues, reference: SetValues | None, original: SetValues | None, seed: int) -> Score:
    absent = Score(value=None, better="higher", reference="retrained; original")
    models = ((values, ""), (reference, "retrained reference: "), (original, "original model: "))
    found = [sides(some, attack, whose) for some, whose in models]
    known = [one for one in found if not isinstance(one, str)]
    if reason := next((one for one in found if isinstance(one, str)), None):
        return absent.model_copy(update={"reason": reason})
    mine, ideal, before = (one.auc() for one in known)
    room = abs(before - ideal)
    if room == 0:
        reason = "the original model's AUC is the retrained one's: there is nothing to make private"
        return absent.model_copy(update={"reason": reason})
    now, goals, then = (one.auc_draws(seed) for one in known)
    rooms = abs(then - goals)
    low, high = percentiles((1 - abs(now - goals)[rooms > 0] / rooms[rooms > 0]).clip(0))
    return Score(
        value=max(0.0, 1 - abs(mine - ideal) / room),
        low=low,
        high=high,
        n=known[0].num_rows,
        clusters=known[0].clusters,
        better="higher",
        reference=absent.reference,
    )
