"""Rows whose numbers can be worked by hand."""

from __future__ import annotations

import math
from typing import Any

from expunge.core import plugins
from expunge.data.example import Example
from expunge.evaluate.base import Metric, SetMetric
from expunge.evaluate.score import FOLDER, SET_FOLDER
from expunge.models.generate import Scored

ROW = Example(
    "r",
    "Who wrote Hamlet?",
    "Shakespeare wrote it.",
    keywords=("Shakespeare",),
    options=("Marlowe wrote it.", "Shakespeare wrote it."),
)


def metric(name: str, **options: Any) -> Metric:
    """A row metric with options."""
    kind = plugins.find(FOLDER, name, Metric)  # type: ignore[type-abstract]
    return kind(kind.Config(**options))


def set_metric(name: str, **options: Any) -> SetMetric:
    """A metric over many rows with options."""
    kind = plugins.find(SET_FOLDER, name, SetMetric)  # type: ignore[type-abstract]
    return kind(kind.Config(**options))


def scored(*probabilities: float, hit: tuple[bool, ...] | None = None) -> Scored:
    """An answer whose tokens have these probabilities."""
    return Scored(tuple(map(math.log, probabilities)), hit or (True,) * len(probabilities))
