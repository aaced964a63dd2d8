"""Several scores as one number, with every part of it shown.

A name says what enters, so that numbers of different names are never compared:

- `fe5`: forget efficacy (arXiv:2410.08109), 1 - mean of ROUGE-L recall, probability, truth ratio, cosine similarity
  and entailment on the forget rows;
- `mu18`: harmonic mean of six metrics on each of retain, neighbour and general, in the places of TOFU's retain set,
  real authors and world facts; `mu6_retain` and `mu6_neighbour`: of one split;
- `mu9`: TOFU's own model utility (arXiv:2401.06121), three metrics on each of the three;
- OpenUnlearning's (arXiv:2506.12618), all harmonic means, shown where each of their metrics was measured:
  `memorisation4` of 1 - extraction strength, exact memorisation, probability of the paraphrase and truth probability
  on the forget rows; `privacy4` of the four attacks' nearness to the retrained model; `utility10` of `mu9` and clean
  text on the forget rows; `overall18` of these three, and `agg14` of the first and the last (arXiv:2510.19422).

If a metric is absent, so is the aggregate. A reduced form of an absent `fe5`, `mu18` or `mu6` is reported under a name
that lists what was left out everywhere, e.g. `fe4_without_entailment`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from expunge.core.records import Aggregate, Aggregates, Component, Score, Scores
from expunge.evaluate.items import Values
from expunge.evaluate.score import Units
from expunge.numerics.intervals import Numbers, percentiles, resampled_weights

_THREE = ("rouge_l_recall", "probability", "truth_ratio")
_SIX = (*_THREE, "token_entropy", "cosine_similarity", "entailment")
_FIVE = (*_THREE, "cosine_similarity", "entailment")
_OPTIONS = ("neighbour", "general")
"""Splits in the places of real authors and world facts, where TOFU sets the right answer's probability against the
wrong ones'."""
_FEWEST = 3
"""Metrics that a reduced aggregate must have left."""


class Part(NamedTuple):
    """One component: a metric's mean on a split, or 1 less it."""

    split: str
    role: str
    """Parts of one role are left out together if any split lacks it."""
    metric: str
    complement: bool = False

    @property
    def name(self) -> str:
        """As the record shows it."""
        return f"1 - {self.metric}" if self.complement else self.metric


class Family(NamedTuple):
    """An aggregate before anything is left out of it."""

    stem: str
    suffix: str
    parts: tuple[Part, ...]
    rule: Callable[[Numbers], Numbers]
    """(K, ...) components to (...)."""
    reducible: bool = True
    always: bool = True
    """Whether it is reported even if its metrics were not measured."""

    @property
    def name(self) -> str:
        """Stem and number of components."""
        return f"{self.stem}{len(self.parts)}{self.suffix}"


def forget_efficacy(components: Numbers) -> Numbers:
    """1 - arithmetic mean: (K, ...) -> (...)."""
    efficacy: Numbers = 1 - components.mean(axis=0)
    return efficacy


def harmonic_mean(components: Numbers) -> Numbers:
    """K / sum of reciprocals, and 0 where any component is 0: (K, ...) -> (...)."""
    with np.errstate(divide="ignore"):
        mean: Numbers = len(components) / (1 / components).sum(axis=0)
    return mean


def utility(components: Numbers) -> Numbers:
    """Of the nine utilities together, and of clean text: (10, ...) -> (...)."""
    return harmonic_mean(np.stack([harmonic_mean(components[:9]), components[9]]))


def memorisation_and_utility(components: Numbers) -> Numbers:
    """Of four forgotten shares together, and of the ten of utility: (14, ...) -> (...)."""
    return harmonic_mean(np.stack([harmonic_mean(components[:4]), utility(components[4:])]))


def overall(components: Numbers) -> Numbers:
    """Of memorisation, privacy and utility, their components one after another: (18, ...) -> (...)."""
    some = harmonic_mean(components[:4]), harmonic_mean(components[4:8]), utility(components[8:])
    return harmonic_mean(np.stack(some))


def _kept(splits: Sequence[str], roles: Sequence[str], options: Sequence[str] = ()) -> tuple[Part, ...]:
    metric = {(split, "probability"): "normalised_probability" for split in options}
    return tuple(Part(split, role, metric.get((split, role), role)) for split in splits for role in roles)


_ALL = ("retain", *_OPTIONS)
_NINE = _kept(_ALL, _THREE, _OPTIONS)
_FORGOTTEN = tuple(
    Part("forget", name, name, complement=True)
    for name in ("extraction_strength", "exact_memorization", "paraphrased_probability", "truth_probability")
)
_PRIVATE = tuple(
    Part("forget", name, name) for name in ("privacy_loss", "privacy_zlib", "privacy_min_k", "privacy_min_k_plus_plus")
)
_USEFUL = (*_NINE, Part("forget", "gibberish", "gibberish"))
FAMILIES = (
    # the forget form of the truth ratio, mean min(R, 1/R), rises with forgetting; its complement is the leak
    Family("fe", "", tuple(Part("forget", role, role, role == "truth_ratio") for role in _FIVE), forget_efficacy),
    Family("mu", "", _kept(_ALL, _SIX, _OPTIONS), harmonic_mean),
    Family("mu", "", _NINE, harmonic_mean, reducible=False),
    Family("mu", "_retain", _kept(("retain",), _SIX), harmonic_mean),
    Family("mu", "_neighbour", _kept(("neighbour",), _SIX), harmonic_mean),
    Family("memorisation", "", _FORGOTTEN, harmonic_mean, reducible=False, always=False),
    Family("privacy", "", _PRIVATE, harmonic_mean, reducible=False, always=False),
    Family("utility", "", _USEFUL, utility, reducible=False, always=False),
    Family("agg", "", (*_FORGOTTEN, *_USEFUL), memorisation_and_utility, reducible=False, always=False),
    Family("overall", "", (*_FORGOTTEN, *_PRIVATE, *_USEFUL), overall, reducible=False, always=False),
)


def summarise(
    values: Values,
    scores: Scores,
    seed: int,
    roles: Mapping[str, str] | None = None,
    unlike: Collection[str] = (),
    units: Units | None = None,
) -> Aggregates:
    """Every aggregate of one pass, and the reduced forms of those that lack a metric.

    Args:
        values: row values of the pass.
        scores: its scores.
        seed: of the bootstrap.
        roles: set -> its role, of which the first set of each stands for the role; none: sets are named by them.
        unlike: metrics whose options made them another quantity than the one that aggregates are defined over.
        units: set -> the cluster of each row. Default: every row is independent.
    """
    places = {role: name for name, role in reversed([*(roles or {}).items()])}
    scores = {part: {name: _usual(name, one, unlike) for name, one in some.items()} for part, some in scores.items()}
    found: Aggregates = {}
    for family in (_placed(family, places) for family in FAMILIES):
        if not (family.always or all(part.metric in scores.get(part.split, {}) for part in family.parts)):
            continue
        found[family.name] = _aggregate(family, values, scores, seed, units or {})
        reduced = _reduced(family, scores)
        if reduced is not None:
            found[reduced.name] = _aggregate(reduced, values, scores, seed, units or {})
    return found


def _usual(name: str, one: Score, unlike: Collection[str]) -> Score:
    """The score, if it may enter an aggregate."""
    return Score(value=None, reason="its options make it another quantity") if name in unlike else one


def _placed(family: Family, places: Mapping[str, str]) -> Family:
    """The family over sets of other names."""
    return family._replace(
        parts=tuple(part._replace(split=places.get(part.split, part.split)) for part in family.parts)
    )


def _reduced(family: Family, scores: Scores) -> Family | None:
    """The family without the metrics that any of its splits lacks; None where none or too many lack."""
    if not family.reducible or any(part.split not in scores for part in family.parts):
        return None
    lacking = [part.role for part in family.parts if _component(part, scores).value is None]
    roles = list(dict.fromkeys(lacking))
    parts = tuple(part for part in family.parts if part.role not in roles)
    if not roles or len({part.role for part in parts}) < _FEWEST:
        return None
    return family._replace(parts=parts, suffix=f"{family.suffix}_without_{'_and_'.join(roles)}")


def _aggregate(family: Family, values: Values, scores: Scores, seed: int, units: Units) -> Aggregate:
    components = [_component(part, scores) for part in family.parts]
    numbers = [component.value for component in components if component.value is not None]
    if len(numbers) < len(components):
        return Aggregate(value=None, components=components, reason=_reason(family, scores))
    over_rows = all(part.metric in values.get(part.split, {}) for part in family.parts)
    low, high = _interval(family, values, seed, units) if over_rows else (None, None)
    zeros = [f"{part.split}/{part.name}" for part in components if part.value == 0]
    return Aggregate(
        value=float(family.rule(np.array(numbers))),
        low=low,
        high=high,
        components=components,
        zeroed_by=[] if family.rule is forget_efficacy else zeros,
    )


def _component(part: Part, scores: Scores) -> Component:
    score = scores.get(part.split, {}).get(part.metric)
    if score is None or score.value is None:
        reason = "not measured" if score is None else score.reason
        return Component(split=part.split, name=part.name, value=None, reason=reason)
    return Component(split=part.split, name=part.name, value=1 - score.value if part.complement else score.value)


def _reason(family: Family, scores: Scores) -> str:
    """The splits that were not measured at all, or else why each metric is absent where it first is."""
    splits = dict.fromkeys(part.split for part in family.parts)
    if unmeasured := [split for split in splits if split not in scores]:
        return f"{' and '.join(unmeasured)} not measured"
    reasons: dict[str, str | None] = {}
    for part in family.parts:
        found = _component(part, scores)
        if found.value is None:
            reasons.setdefault(part.metric, found.reason)
    return "; ".join(f"{metric}: {reason}" for metric, reason in reasons.items())


def _interval(family: Family, values: Values, seed: int, units: Units) -> tuple[float, float]:
    """95% percentile interval; the rows of a split are drawn once for all its metrics."""
    weights = {}
    for number, split in enumerate(dict.fromkeys(part.split for part in family.parts)):
        rows = len(next(iter(values[split].values())))
        weights[split] = resampled_weights(units.get(split) or rows, seed + number)
    means = np.stack([_drawn_mean(part, values, weights[part.split]) for part in family.parts])
    return percentiles(family.rule(means))


def _drawn_mean(part: Part, values: Values, weights: Numbers) -> Numbers:
    """Mean of each draw over the rows that have a number; nan where none has."""
    rows = values[part.split][part.metric]
    has = np.array([not isinstance(value, str) for value in rows], dtype=np.float64)
    numbers = np.array([0.0 if isinstance(value, str) else value for value in rows])
    with np.errstate(invalid="ignore"):
        means: Numbers = (weights @ numbers) / (weights @ has)
    return 1 - means if part.complement else means
