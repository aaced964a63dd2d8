"""From evidence to scores: each metric over each split, with a 95% interval or the reason for its absence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.core import plugins
from expunge.core.records import Score, Scores
from expunge.core.validation import check
from expunge.evaluate.base import Absent, EvaluateConfig, Metric, Need, Role, SetMetric, SetValues
from expunge.evaluate.evidence import Evidence

BOOTSTRAP_DRAWS = 2000
FOLDER = "evaluate/metrics"
SET_FOLDER = "evaluate/set_metrics"


def load_metrics(config: EvaluateConfig, more: Sequence[str] = ()) -> dict[str, Metric]:
    """Row metrics by name, with their options: the configured ones, or all that do not wait to be named.

    Args:
        config: names and options.
        more: names that are wanted besides.

    Raises:
        UserError: unknown metric, or an option that it does not have.
    """
    kinds = {name: plugins.find(FOLDER, name, Metric) for name in (*config.metrics, *more)}  # type: ignore[type-abstract]
    if not config.metrics:
        every = {name: plugins.find(FOLDER, name, Metric) for name in plugins.names(FOLDER)}  # type: ignore[type-abstract]
        kinds = {name: kind for name, kind in every.items() if not kind.opt_in} | kinds
    _check_options(config)
    return {
        name: kind(check(kind.Config, config.options.get(name, {}), f"evaluate.options.{name}"))
        for name, kind in kinds.items()
    }


def load_set_metrics(config: EvaluateConfig, *, by_default: bool) -> dict[str, SetMetric]:
    """Metrics over many rows by name, with their options.

    Args:
        config: names and options.
        by_default: whether all of them are wanted where none is named.

    Raises:
        UserError: unknown metric, or an option that it does not have.
    """
    names = config.set_metrics
    if names is None:
        names = tuple(plugins.names(SET_FOLDER)) if by_default else ()
    kinds = {name: plugins.find(SET_FOLDER, name, SetMetric) for name in names}  # type: ignore[type-abstract]
    return {
        name: kind(check(kind.Config, config.options.get(name, {}), f"evaluate.options.{name}"))
        for name, kind in kinds.items()
    }


def _check_options(config: EvaluateConfig) -> None:
    """Options are checked even of metrics that nobody asked for: a mistyped name would do nothing."""
    for name, options in config.options.items():
        if name in plugins.names(SET_FOLDER):
            kind: type[Metric | SetMetric] = plugins.find(SET_FOLDER, name, SetMetric)
        else:
            kind = plugins.find(FOLDER, name, Metric)
        check(kind.Config, options, f"evaluate.options.{name}")


def needs_of(metrics: Mapping[str, Metric]) -> frozenset[Need]:
    """What the evidence pass must provide."""
    return frozenset().union(*(metric.needs for metric in metrics.values()))


def item_values(
    evidence: Evidence,
    metrics: Mapping[str, Metric],
    chosen: Mapping[str, Collection[str]] | None = None,
    roles: Mapping[str, Role] | None = None,
) -> dict[str, dict[str, list[float | str]]]:
    """Set -> metric -> one number a row, or the reason why there is none.

    Args:
        evidence: of one model.
        metrics: by name.
        chosen: set -> the metrics that it is measured by; none: all, on every set.
        roles: set -> its role; none: sets are named by their roles.
    """
    for name, metric in metrics.items():
        metric.prepare({part: items for part, items in evidence.items() if chosen is None or name in chosen[part]})
    return {
        part: {
            name: [_value(metric, item, roles[part] if roles else part) for item in items]
            for name, metric in metrics.items()
            if chosen is None or name in chosen[part]
        }
        for part, items in evidence.items()
    }


def score(
    values: dict[str, dict[str, list[float | str]]],
    metrics: Mapping[str, Metric],
    seed: int,
    roles: Mapping[str, Role] | None = None,
) -> Scores:
    """Scores of row values. Rows without a number are left out of `n`; a set without any is absent."""
    return {
        part: {
            name: _score(numbers, metrics[name], roles[part] if roles else part, seed)
            for name, numbers in by_metric.items()
        }
        for part, by_metric in values.items()
    }


def set_values(values: dict[str, dict[str, list[float | str]]], roles: Mapping[str, Role]) -> SetValues:
    """Row values by role, sets of one role one after another; rows without a number are left out."""
    found: dict[Role, dict[str, list[float]]] = {}
    for part, by_metric in values.items():
        for name, numbers in by_metric.items():
            some = found.setdefault(roles[part], {}).setdefault(name, [])
            some += [number for number in numbers if not isinstance(number, str)]
    return {role: {name: np.array(numbers) for name, numbers in by_metric.items()} for role, by_metric in found.items()}


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
