"""From snapshots of each prompt to the record: means, changes and scores, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from expunge.core.records import Frozen, Score
from expunge.core.squeeze_record import Band, Estimate, Level, Ranking, Squeeze, SqueezeCheck, SqueezeScores
from expunge.numerics.intervals import percentiles, resampled_weights
from expunge.train.candidates import FEWEST, CandidateSet

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)
BANDS: tuple[Band, ...] = get_args(Band)

Values = NDArray[np.float64]


class Snapshot(Frozen):
    """The measurements of one check on each of P prompts; numbers only, so that a checkpoint can keep them."""

    step: int
    epoch: float
    end_of_epoch: bool
    levels: dict[str, list[list[float]]]
    """`target` and `RANKING/BAND`: [summed, mean] log-probability, P pairs."""
    tokens: dict[str, list[float]]
    """Means over the target's tokens, P each."""
    samples: dict[str, list[float]]
    """Overlap of answers sampled at this moment with the target, at most P each; empty if none were sampled."""


@dataclass(frozen=True)
class Counts:
    """Numbers of kept and dropped prompts and candidates."""

    prompts: int
    left_out: int
    thin: int
    generated: int
    duplicates: int
    copies: int

    @classmethod
    def of(cls, pools: Sequence[CandidateSet], fewest: int) -> Counts:
        """Counts over pools; those with fewer than `fewest` candidates are left out."""
        sizes = [len(pool.kept) for pool in pools]
        return cls(
            prompts=sum(size >= fewest for size in sizes),
            left_out=sum(size < fewest for size in sizes),
            thin=sum(fewest <= size < FEWEST for size in sizes),
            generated=sum(pool.generated for pool in pools),
            duplicates=sum(pool.duplicates for pool in pools),
            copies=sum(pool.copies for pool in pools),
        )


def summarise(snapshots: Sequence[Snapshot], counts: Counts, seed: int) -> Squeeze:
    """The record of a run's snapshots, the first of them at step 0."""
    found = {
        name: np.array([one.levels[name] for one in snapshots]) for name in (snapshots[0].levels if snapshots else ())
    }
    changes = {name: values - values[0] for name, values in found.items()}

    def level(name: str, at: int) -> Level:
        names = ("total", "mean", "total_change", "mean_change")
        columns = (*found[name][at].T, *changes[name][at].T)
        return Level(**{key: estimate(values, seed) for key, values in zip(names, columns, strict=True)})

    checks = [
        SqueezeCheck(
            step=one.step,
            epoch=one.epoch,
            end_of_epoch=one.end_of_epoch,
            target=level("target", at),
            bands={ranking: {band: level(f"{ranking}/{band}", at) for band in BANDS} for ranking in RANKINGS},
            relative={
                ranking: estimate((changes[f"{ranking}/high"] - changes["target"])[at, :, _column(ranking)], seed)
                for ranking in RANKINGS
            },
            **{name: estimate(np.array(values), seed) for name, values in one.tokens.items()},
            **{name: estimate(np.array(values), seed) for name, values in one.samples.items() if values},
        )
        for at, one in enumerate(snapshots)
    ]
    highs = {ranking: changes[f"{ranking}/high"][..., _column(ranking)] for ranking in RANKINGS} if snapshots else {}
    scores = {ranking: _scores(highs.get(ranking), snapshots, seed) for ranking in RANKINGS}
    return Squeeze(**vars(counts), checks=checks, scores=scores)


def estimate(values: Values, seed: int) -> Estimate:
    """Mean with a 95% percentile interval over resampled prompts: (P,)."""
    low, high = percentiles(_resampled(values, seed))
    return Estimate(value=float(values.mean()), low=low, high=high)


def _column(ranking: Ranking) -> int:
    """Column of a ranking's own measure: sums for `sum`, means for `mean`."""
    return ("sum", "mean").index(ranking)


def _scores(change: Values | None, snapshots: Sequence[Snapshot], seed: int) -> SqueezeScores:
    """Both scores from the (checks, P) changes of the high band since step 0."""
    if change is None:
        absent = _absent("no forget prompt had enough candidates")
        return SqueezeScores(squeeze_high=absent, persist=absent)
    draws = _resampled(change, seed)
    ends = [at for at, one in enumerate(snapshots) if one.end_of_epoch]
    rose = _score(change[1:].mean(-1).max(), draws[1:].max(0), change.shape[-1])
    if not ends:
        return SqueezeScores(squeeze_high=rose, persist=_absent("training stopped within its first epoch"))
    persisted = _score((change[ends].mean(-1) > 0).mean(), (draws[ends] > 0).mean(0), change.shape[-1])
    return SqueezeScores(squeeze_high=rose, persist=persisted)


def _absent(reason: str) -> Score:
    return Score(value=None, better="lower", reason=reason)


def _score(value: Any, draws: Values, count: int) -> Score:
    low, high = percentiles(draws)
    return Score(value=float(value), low=low, high=high, n=count, better="lower")


def _resampled(values: Values, seed: int) -> Values:
    """Means over prompts drawn with replacement: (..., P) -> (..., draws)."""
    count = values.shape[-1]
    means: Values = values @ resampled_weights(count, seed).T / count
    return means
