"""Privacy: how near each attack's AUC came to the retrained model's, from the original's (arXiv:2506.12618)."""

from __future__ import annotations

from expunge.core.records import Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.set_metrics._auc import auc, auc_draws, sides
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
    name = "retrained; original"
    mine = sides(values, attack)
    retrained = sides(reference, attack, "retrained reference: ")
    before = sides(original, attack, "original model: ")
    for some in (mine, retrained, before):
        if isinstance(some, str):
            return Score(value=None, better="higher", reference=name, reason=some)
    assert not isinstance(mine, str)
    assert not isinstance(retrained, str)
    assert not isinstance(before, str)
    room = abs(auc(before) - auc(retrained))
    if room == 0:
        reason = "the original model's AUC is the retrained one's: there is nothing to make private"
        return Score(value=None, better="higher", reference=name, reason=reason)
    now, ideal, then = (auc_draws(some, seed) for some in (mine, retrained, before))
    rooms = abs(then - ideal)
    draws = (1 - abs(now - ideal)[rooms > 0] / rooms[rooms > 0]).clip(0)
    low, high = percentiles(draws)
    return Score(
        value=max(0.0, 1 - abs(auc(mine) - auc(retrained)) / room),
        low=low,
        high=high,
        n=mine.num_rows,
        clusters=mine.clusters,
        better="higher",
        reference=name,
    )
