"""Sets of rows that are measured together: the splits of a run, or the sets of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.data.summary import DataSummary
from expunge.evaluate.config import EvaluateConfig, Role


@dataclass(frozen=True)
class EvalSet:
    """Rows, their role, and how they are measured."""

    rows: tuple[Example, ...]
    role: Role
    config: EvaluateConfig
    metrics: tuple[str, ...] = ()
    """Row metrics by name. Default: those of the configuration."""
    compared: bool = True
    """Whether set metrics read it."""
    by_topic: bool = False
    """Whether its topics are also scored separately."""
    understood: tuple[DataSummary, ...] = ()
    """How its data sets were read."""


Sets = Mapping[str, EvalSet]
"""Name -> set. A run's splits are named like their roles."""


def sets_of(splits: Splits, config: EvaluateConfig) -> dict[str, EvalSet]:
    """The splits of a run as sets with the same options."""
    return {
        name: EvalSet(rows, name, config, understood=splits.understood.get(name, ()))  # type: ignore[arg-type]
        for name, rows in splits.named()
    }
