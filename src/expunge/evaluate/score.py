"""From evidence to scores: each metric over each split, with a 95% interval or the reason for its absence."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.records import Score, Scores
from expunge.core.validation import check
from expunge.evaluate.aliases import named, named_set_metric
from expunge.evaluate.base import Absent, Metric, Need, RowNumbers, SetMetric, SetValues
from expunge.evaluate.config import EvaluateConfig, Role
from expunge.evaluate.evidence import Evidence
from expunge.numerics.intervals import Clusters, bootstrap_interval, clustered, share_interval

Units = Mapping[str, Clusters]
"""Set -> the cluster of each row."""
FOLDER = "evaluate/metrics"
SET_FOLDER = "evaluate/set_metrics"

_AnyMetric = TypeVar("_AnyMetric", Metric, SetMetric)


def load_metrics(config: EvaluateConfig, more: Sequence[str] = ()) -> dict[str, Metric]:
    """Row metrics by name, with their options: the configured ones, or else all that are not opt-in.

    Args:
        config: names and options.
        more: further names.

    Raises:
        UserError: unknown metric, or an option that it does not have.
    """
    names = dict.fromkeys(named(name).metric for name in (*config.metrics, *more))
    kinds = {name: plugins.find(FOLDER, name, Metric) for name in names}  # type: ignore[type-abstract]
    if not config.metrics:
        every = {name: plugins.find(FOLDER, name, Metric) for name in plugins.names(FOLDER)}  # type: ignore[type-abstract]
        kinds = {name: kind for name, kind in every.items() if not kind.opt_in} | kinds
    return _built(kinds, config)


def load_set_metrics(config: EvaluateConfig, *, by_default: bool) -> dict[str, SetMetric]:
    """Metrics over many rows by name, with their options.

    Args:
        config: names and options.
        by_default: whether to load all of them if the configuration names none.

    Raises:
        UserError: unknown metric, or an option that it does not have.
    """
    names: Iterable[str] = config.set_metrics or ()
    if config.set_metrics is None and by_default:
        names = plugins.names(SET_FOLDER)
    names = dict.fromkeys(map(named_set_metric, names))
    return _built({name: plugins.find(SET_FOLDER, name, SetMetric) for name in names}, config)  # type: ignore[type-abstract]


def _built(kinds: Mapping[str, type[_AnyMetric]], config: EvaluateConfig) -> dict[str, _AnyMetric]:
    options = _options(config)
    return {
        name: kind(check(kind.Config, options.get(name, {}), f"evaluate.options.{name}"))
        for name, kind in kinds.items()
    }


def _options(config: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """Options by our own names of metrics. They are all checked, also those of metrics that are not measured.

    Raises:
        UserError: no such metric, no such option, or a metric under two names.
    """
    found: dict[str, dict[str, Any]] = {}
    for given, options in config.options.items():
        name = named_set_metric(named(given).metric)
        if name in found:
            raise UserError(f"evaluate.options.{given}: the options of {name} are given twice, under two names")
        found[name] = options
        if name in plugins.names(SET_FOLDER):
            kind: type[Metric | SetMetric] = plugins.find(SET_FOLDER, name, SetMetric)
        else:
            kind = plugins.find(FOLDER, name, Metric)
        check(kind.Config, options, f"evaluate.options.{given}")
    return found


def needs_of(metrics: Mapping[str, Metric]) -> frozenset[Need]:
    """The evidence that the metrics need."""
    return frozenset().union(*(metric.needs for metric in metrics.values()))


def item_values(
    evidence: Evidence,
    metrics: Mapping[str, Metric],
    chosen: Mapping[str, Collection[str]] | None = None,
    roles: Mapping[str, Role] | None = None,
) -> dict[str, dict[str, list[float | str]]]:
    """Set -> metric -> one number per row, or the reason for its absence.

    Args:
        evidence: of one model.
        metrics: by name.
        chosen: set -> the metrics that it is measured by. Default: all, on every set.
        roles: set -> its role. Default: sets are named after their roles.
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
    units: Units | None = None,
) -> Scores:
    """Scores of row values. Rows without a number are left out of `n`; a set without any is absent.

    Args:
        values: set -> metric -> a number for each row, or the reason for its absence.
        metrics: by name.
        seed: of the resampled rows.
        roles: set -> its role. Default: sets are named after their roles.
        units: set -> the cluster of each row. Default: every row is independent.
    """
    return {
        part: {
            name: _score(numbers, metrics[name], roles[part] if roles else part, seed, (units or {}).get(part))
            for name, numbers in by_metric.items()
        }
        for part, by_metric in values.items()
    }


def units_of(evidence: Evidence) -> Units:
    """The clusters of the rows of each set."""
    return {part: [item.example.unit for item in items] for part, items in evidence.items()}


def topic_values(
    evidence: Evidence, values: Mapping[str, Mapping[str, Sequence[float | str]]]
) -> dict[str, dict[str, dict[str, list[float | str]]]]:
    """Set -> `set: topic` -> metric -> numbers of the rows of that topic; rows without a topic are in none.

    Args:
        evidence: of sets that are scored by topic.
        values: set -> metric -> a number for each row, or the reason for its absence.
    """
    found: dict[str, dict[str, dict[str, list[float | str]]]] = {}
    for name, items in evidence.items():
        topics = [item.example.topic for item in items]
        found[name] = {
            f"{name}: {topic}": {
                metric: [value for value, own in zip(numbers, topics, strict=True) if own == topic]
                for metric, numbers in values[name].items()
            }
            for topic in dict.fromkeys(filter(None, topics))
        }
    return found


def topic_units(evidence: Evidence) -> Units:
    """`set: topic` -> the clusters of the rows of that topic."""
    found: dict[str, list[str | None]] = {}
    for part, items in evidence.items():
        for example in (item.example for item in items if item.example.topic):
            found.setdefault(f"{part}: {example.topic}", []).append(example.unit)
    return found


def set_values(
    values: dict[str, dict[str, list[float | str]]], roles: Mapping[str, Role], units: Units | None = None
) -> SetValues:
    """Row values by role, sets of one role one after another; rows without a number, and sets without a role, left out.

    Args:
        values: set -> metric -> a number for each row, or the reason for its absence.
        roles: of the sets that count.
        units: set -> the cluster of each row. Default: every row is independent.
    """
    found: dict[Role, dict[str, tuple[list[float | str], list[str | int | None]]]] = {}
    for part, by_metric in ((part, by_metric) for part, by_metric in values.items() if part in roles):
        for name, numbers in by_metric.items():
            rows, about = found.setdefault(roles[part], {}).setdefault(name, ([], []))
            rows += numbers
            about += (units or {}).get(part) or [None] * len(numbers)
    return {
        role: {name: RowNumbers(*_numbers(*rows)) for name, rows in by_metric.items()}
        for role, by_metric in found.items()
    }


def _numbers(values: Sequence[float | str], units: Clusters | None) -> tuple[NDArray[np.float64], Clusters | None]:
    """Rows that have a number, and their units."""
    has = [not isinstance(value, str) for value in values]
    return np.array([*compress(values, has)], dtype=np.float64), None if units is None else [*compress(units, has)]


def _value(metric: Metric, item: object, split: str) -> float | str:
    try:
        value = metric.value(item, split)  # type: ignore[arg-type]
    except Absent as absent:
        return str(absent)
    return value if math.isfinite(value) else "the model gave a probability that is not a number"


def _score(values: list[float | str], metric: Metric, split: str, seed: int, units: Clusters | None) -> Score:
    numbers, clusters = _numbers(values, units)
    if not len(numbers):
        reasons = [value for value in values if isinstance(value, str)]
        reason = reasons[0] if reasons else "no rows"
        return Score(value=None, better=metric.better(split), reference=metric.reference, reason=reason)
    if metric.yes_or_no:
        low, high = share_interval(numbers, clusters)
    else:
        low, high = bootstrap_interval(numbers, clusters, seed, metric.aggregate)
    return Score(
        value=float(metric.aggregate(numbers)),
        low=low,
        high=high,
        n=len(numbers),
        clusters=clustered(clusters),
        better=metric.better(split),
        chance=metric.chance,
        reference=metric.reference,
    )
