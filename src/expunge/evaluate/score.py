"""From evidence to scores: each metric over each split, with a 95% interval or the reason for its absence."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from expunge.core import plugins
from expunge.core.records import Score, Scores
from expunge.core.validation import check
from expunge.evaluate.base import Absent, EvaluateConfig, Metric, Need
from expunge.evaluate.evidence import Evidence

BOOTSTRAP_DRAWS = 2000
FOLDER = "evaluate/metrics"


def load_metrics(config: EvaluateConfig) -> dict[str, Metric]:
    """The configured metrics by name, with their options.

    Raises:
        UserError: unknown metric, or an option that it does not have.
    """
    names = config.metrics or tuple(plugins.names(FOLDER))
    wanted = dict.fromkeys((*names, *config.options))
    kinds = {name: plugins.find(FOLDER, name, Metric) for name in wanted}  # type: ignore[type-abstract]
    options = {
        name: check(kind.Config, config.options.get(name, {}), f"evaluate.options.{name}")
        for name, kind in kinds.items()
    }
    return {name: kinds[name](options[name]) for name in names}


def needs_of(metrics: dict[str, Metric]) -> frozenset[Need]:
    """What the evidence pass must provide."""
    return frozenset().union(*(metric.needs for metric in metrics.values()))


def item_values(evidence: Evidence, metrics: dict[str, Metric]) -> dict[str, dict[str, list[float | str]]]:
    """Split -> metric -> one number a row, or the reason why there is none."""
    for metric in metrics.values():
        metric.prepare(evidence)
    return {
        split: {name: [_value(metric, item, split) for item in items] for name, metric in metrics.items()}
        for split, items in evidence.items()
    }


def score(values: dict[str, dict[str, list[float | str]]], metrics: dict[str, Metric], seed: int) -> Scores:
    """Scores of row values. Rows without a number are left out of `n`; a split without any is absent."""
    return {
        split: {name: _score(by_metric[name], metric, split, seed) for name, metric in metrics.items()}
        for split, by_metric in values.items()
    }


def _value(metric: Metric, item: object, split: str) -> float | str:
    try:
        value = metric.value(item, split)  # type: ignore[arg-type]
    except Absent as absent:
        return str(absent)
    return value if math.isfinite(value) else "the model gave a probability that is not a number"


def _score(values: list[float | str], metric: Metric, split: str, seed: int) -> Score:
    numbers = np.array([value for value in values if not isinstance(value, str)])
    if not len(numbers):
        reasons = [value for value in values if isinstance(value, str)]
        reason = reasons[0] if reasons else "no rows"
        return Score(value=None, better=metric.better(split), reference=metric.reference, reason=reason)
    low, high = _wilson(numbers) if metric.yes_or_no else _bootstrap(numbers, metric, seed)
    return Score(
        value=float(metric.aggregate(numbers)),
        low=low,
        high=high,
        n=len(numbers),
        better=metric.better(split),
        chance=metric.chance,
        reference=metric.reference,
    )


def _wilson(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """95% interval of a share, which keeps its width at 0 and 1."""
    from scipy.stats import binomtest

    interval = binomtest(int(numbers.sum()), len(numbers)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _bootstrap(numbers: NDArray[np.float64], metric: Metric, seed: int) -> tuple[float, float]:
    """95% percentile interval over resampled rows."""
    draws = np.random.default_rng(seed).integers(len(numbers), size=(BOOTSTRAP_DRAWS, len(numbers)))
    low, high = np.quantile(metric.aggregate(numbers[draws]), [0.025, 0.975])
    return float(low), float(high)
