"""Meta-evaluation: is a metric faithful, and is it robust? Definitions of OpenUnlearning (arXiv:2506.12618).

Every metric is oriented so that higher means more knowledge of the forget rows: unchanged if lower is wanted there,
`1 - m` if higher is wanted, and as the options say if neither is. Faithfulness is the AUROC between models that know
and models that do not. Robustness is about unlearned models that appear not to know: do they still after an attack?

    R = (ret_after - ret_before) / (unl_after - unl_before)    relearning, against the retrained model's own gain
    Q = unl_before / unl_after                                 quantization

both clipped to [0, 1]; 1 means that the attack revealed nothing that the metric had missed. The symmetric forms of
arXiv:2605.24614 also count a metric that falls: `R = 1 - |U - V| / (|U| + |V|)` of the two gains, and
`Q = 1 - |after - before| / (|after| + |before|)`. Robustness is the harmonic mean of the means of R and Q over models.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from pydantic import Field

from expunge.core.metric_trust import MetricTrust, PoolModel, Verdict
from expunge.core.records import Frozen, Score
from expunge.evaluate.summary import harmonic_mean
from expunge.numerics.intervals import Numbers, percentiles, resampled_weights, weighted_mean

_Z = 1.959963984540054
"""97.5% point of the normal distribution."""


class TrustConfig(Frozen):
    """Thresholds of trust."""

    higher_knows: tuple[str, ...] = Field(
        ("mia_*_auc", "relative_difference"),
        description="Patterns of metrics without a wanted direction of which higher values mean more knowledge",
    )
    lower_knows: tuple[str, ...] = Field(
        ("krd", "privleak", "raw_truth_ratio"),
        description="Patterns of those of which lower values mean more knowledge",
    )
    symmetric: bool = Field(False, description="Robustness that also counts a metric which falls under attack")
    min_utility: float = Field(0.8, ge=0, description="Unlearned models below this share of utility are left out")
    min_faithfulness: float = Field(0.9, ge=0.5, le=1, description="AUROC of a metric to be trusted")
    min_robustness: float = Field(0.7, ge=0, le=1, description="Robustness of a metric to be trusted")


def knowledge(score: Score | None, metric: str, config: TrustConfig) -> float | None:
    """A metric's value on the forget rows, oriented so that higher means more knowledge; None if it has none.

    Args:
        score: of the metric.
        metric: its name, perhaps after the name of its set.
        config: orients metrics without a wanted direction.
    """
    if score is None or score.value is None:
        return None
    name = metric.rpartition("/")[2]
    if score.better == "lower" or (score.better == "neither" and _matches(name, config.higher_knows)):
        return score.value
    if score.better == "higher" or _matches(name, config.lower_knows):
        return 1 - score.value
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def quantize_robustness(before: float, after: float, symmetric: bool = False) -> float:
    """Q of one unlearned model, from oriented values; the plain form is a ratio, of values that are not below 0.

    0 before and after gives 1: nothing came back.
    """
    if symmetric:
        total = abs(after) + abs(before)
        return 1 - abs(after - before) / total if total else 1.0
    return 1.0 if after <= before else before / after


def relearn_robustness(
    unlearned: tuple[float, float], retrained: tuple[float, float], symmetric: bool = False
) -> float:
    """R of one unlearned model, from oriented values before and after relearning.

    An unlearned model that gains nothing has 1. A retrained one that gains nothing gives 0 to whoever gains.
    """
    gain, fair = unlearned[1] - unlearned[0], retrained[1] - retrained[0]
    if symmetric:
        total = abs(gain) + abs(fair)
        return 1 - abs(gain - fair) / total if total else 1.0
    return 1.0 if gain <= 0 else min(1.0, max(0.0, fair / gain))


def faithfulness(knowing: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """AUROC of oriented values, with its 95% interval.

    The interval is Newcombe's (Statistics in Medicine 25:559, 2006, method 5), which keeps its width where two small
    groups are apart altogether; a bootstrap would have none.

    Returns:
        Value, lower and upper end.
    """
    from scipy.optimize import brentq
    from sklearn.metrics import roc_auc_score

    labels = [1] * len(knowing) + [0] * len(others)
    area = float(roc_auc_score(labels, [*knowing, *others]))
    pairs, half = len(knowing) * len(others), (len(knowing) + len(others)) / 2 - 1

    def outside(true: float) -> float:
        spread = 1 + half * (1 - true) / (2 - true) + half * true / (1 + true)
        return float((area - true) ** 2 - _Z**2 * true * (1 - true) * spread / pairs)

    low = 0.0 if area == 0 else float(brentq(outside, 0, area - 1e-12))
    high = 1.0 if area == 1 else float(brentq(outside, area + 1e-12, 1))
    return area, low, high


def best_threshold(knowing: Sequence[float], others: Sequence[float]) -> float:
    """Where the shares of models on their right sides add up to most: half way between two neighbouring values.

    Models below it look as if they did not know. Of several such places the lowest; a single value is its own.
    """
    values = sorted({*knowing, *others})
    middles = [(low + high) / 2 for low, high in pairwise(values)]

    def right(threshold: float) -> float:
        return float(np.mean(np.array(knowing) >= threshold) + np.mean(np.array(others) < threshold))

    return max(middles, key=right) if middles else values[0]


def metric_trust(
    metric: str, models: Sequence[PoolModel], retrained: PoolModel | None, config: TrustConfig, seed: int
) -> MetricTrust:
    """Faithfulness, robustness and verdict of one metric.

    Args:
        metric: its name.
        models: the pool, measured.
        retrained: the reference of relearning, measured before and after it.
        config: options.
        seed: of the intervals of robustness, over models.
    """
    oriented = [_orient(model, metric, config) for model in models]
    reference = None if retrained is None else _orient(retrained, metric, config)
    faithful, threshold = _faithfulness(oriented, _reason(models, metric))
    apparent = [model for model in oriented if model.kept and model.looks_unlearned(threshold)]
    why = _why_none(oriented, threshold)
    found_q = [_quantize(model, config) for model in apparent]
    found_r = [_relearn(model, reference, config) for model in apparent]
    quantize = _mean(found_q, why or "Q is a ratio: needs values of at least 0, also with quantized weights", seed)
    relearn = _mean(found_r, why or "needs a retrained model, and unlearned ones that were trained again", seed)
    both = _both(found_r, found_q, relearn, quantize, seed)
    return MetricTrust(
        metric=metric,
        faithfulness=faithful,
        threshold=threshold,
        relearn=relearn,
        quantize=quantize,
        robustness=both,
        verdict=_verdict(faithful, both, config),
    )


class _Oriented(NamedTuple):
    """One oriented metric of one model."""

    knows: bool | None
    kept: bool | None
    before: float | None
    quantized: float | None
    relearned: float | None

    def looks_unlearned(self, threshold: float | None) -> bool:
        return self.before is not None and threshold is not None and self.before < threshold


def _orient(model: PoolModel, metric: str, config: TrustConfig) -> _Oriented:
    scores = (model.before, model.quantized, model.relearned)
    return _Oriented(model.knows, model.kept, *(knowledge(some.get(metric), metric, config) for some in scores))


def _faithfulness(models: Sequence[_Oriented], reason: str | None) -> tuple[Score, float | None]:
    knowing, others = (
        [model.before for model in models if model.knows is knows and model.before is not None]
        for knows in (True, False)
    )
    if not knowing or not others:
        missing = "that knows" if not knowing else "that does not know"
        return _score(None, reason=reason or f"no model of the pool {missing}"), None
    area, low, high = faithfulness(knowing, others)
    score = Score(value=area, low=low, high=high, n=len(knowing) + len(others), better="higher", chance=0.5)
    return score, best_threshold(knowing, others)


def _reason(models: Sequence[PoolModel], metric: str) -> str | None:
    """Reason why models without unlearning have no value, if they have none."""
    scores = [score for model in models if model.knows is not None and (score := model.before.get(metric))]
    if any(score.value is not None and score.better == "neither" for score in scores):
        return "neither direction of it means knowledge"
    return next((score.reason for score in scores if score.reason), None)


def _why_none(models: Sequence[_Oriented], threshold: float | None) -> str | None:
    """Reason why no unlearned model can be used; None if one can."""
    unlearned = [model for model in models if model.knows is None]
    if threshold is None:
        return "no threshold without faithfulness"
    if not unlearned:
        return "no unlearned model in the pool"
    if not any(model.kept for model in unlearned):
        return "no unlearned model of enough utility"
    if not any(model.kept and model.looks_unlearned(threshold) for model in unlearned):
        return "no unlearned model looks as if it did not know"
    return None


def _quantize(model: _Oriented, config: TrustConfig) -> float | None:
    before, after = model.before, model.quantized
    if before is None or after is None or (min(before, after) < 0 and not config.symmetric):
        return None
    return quantize_robustness(before, after, config.symmetric)


def _relearn(model: _Oriented, retrained: _Oriented | None, config: TrustConfig) -> float | None:
    if model.before is None or model.relearned is None or retrained is None:
        return None
    if retrained.before is None or retrained.relearned is None:
        return None
    fair = (retrained.before, retrained.relearned)
    return relearn_robustness((model.before, model.relearned), fair, config.symmetric)


def _mean(found: Sequence[float | None], reason: str, seed: int) -> Score:
    values = np.array([value for value in found if value is not None])
    if not len(values):
        return _score(None, reason=reason)
    return _score(float(values.mean()), weighted_mean(values, resampled_weights(len(values), seed)), len(values))


def _both(
    relearn: Sequence[float | None], quantize: Sequence[float | None], first: Score, second: Score, seed: int
) -> Score:
    """Harmonic mean of the two means; its interval is over the models that have both."""
    if first.value is None or second.value is None:
        return _score(None, reason=first.reason or second.reason)
    value = float(harmonic_mean(np.array([first.value, second.value])))
    pairs = np.array([pair for pair in zip(relearn, quantize, strict=True) if None not in pair], dtype=np.float64)
    if len(pairs) < 2:
        return _score(value, n=len(pairs))
    return _score(value, harmonic_mean((resampled_weights(len(pairs), seed) @ pairs / len(pairs)).T), len(pairs))


def _score(value: float | None, draws: Numbers | None = None, n: int = 0, reason: str | None = None) -> Score:
    """No interval over a single model."""
    if draws is None or n < 2:
        return Score(value=value, n=n, better="higher", reason=reason)
    low, high = percentiles(draws)
    return Score(value=value, low=low, high=high, n=n, better="higher")


def _verdict(faithful: Score, robust: Score, config: TrustConfig) -> Verdict:
    if faithful.value is None or faithful.low is None:
        return "not shown faithful"
    if faithful.value < config.min_faithfulness or faithful.low <= 0.5:
        return "not shown faithful"
    if robust.value is None:
        return "faithful, robustness not measured"
    return "trust" if robust.value >= config.min_robustness else "faithful, not robust"
