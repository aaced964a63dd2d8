"""Which arm is better, and where is no difference shown? An arm is a run, or runs that differ by their seed only."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.records import ITEMS_FILE, RECORD_FILE, Better, Frozen, Record, read_record
from expunge.evaluate.base import Metric
from expunge.evaluate.items import NumbersById, read_items
from expunge.evaluate.paired import Numbers, Paired, holm, over_seeds, paired
from expunge.evaluate.score import FOLDER

Stage = Literal["before", "after"]
_FREE = ("metrics", "set_metrics", "max_rows", "token_budget", "cache", "kinds", "probe_splits")
"""Options of the measurement that leave a row's numbers as they are."""
LEVEL = 0.05
"""Chance of any false difference among all that are told."""


class ArmScore(Frozen):
    """One score of an arm, over its runs."""

    set: str
    metric: str
    mean: float = Field(description="Mean over runs")
    low: float | None = Field(None, description="Lower end of the 95% t interval over runs; none for a single run")
    high: float | None = Field(None, description="Upper end of the same")
    runs: list[float] = Field(description="The score of each run")


class Arm(Frozen):
    """What is compared: one run at one stage, or several that differ by their seed only."""

    name: str
    stage: Stage
    recipe: str
    runs: list[str] = Field(description="Directories, as the user gave them")
    seeds: list[int]
    scores: list[ArmScore]


class Difference(Frozen):
    """An arm less the first arm, over the rows that both have a number for."""

    arm: str
    set: str
    metric: str
    better: Better = Field(description="Which direction is wanted")
    n: int = Field(description="Rows")
    first: float = Field(description="The first arm's score over these rows")
    second: float = Field(description="This arm's")
    difference: float
    low: float = Field(description="Lower end of the difference's 95% bootstrap interval over rows and runs")
    high: float = Field(description="Upper end of the same")
    p: float = Field(description="Two-sided, by swapping the arms' values row by row")
    p_holm: float = Field(description="The same, corrected for the number of comparisons that are told together")
    dz: float | None = Field(description="Mean row difference over its standard deviation; none where all are the same")
    dominance: float = Field(description="Share of rows that are higher less the share of those that are lower")
    shown: bool = Field(description="Whether the interval leaves 0 out")
    sentence: str


class Comparison(Frozen):
    """Arms, and every arm against the first."""

    schema_version: Literal[1] = 1
    arms: list[Arm]
    differences: list[Difference]
    seed: int = Field(description="Of resampled rows and swaps")
    left_out: list[str] = Field(default_factory=list, description="Comparisons without rows in common")


class _Run(NamedTuple):
    path: str
    stage: Stage
    record: Record
    numbers: NumbersById

    @property
    def seed(self) -> int:
        return int(self.record.config.get("seed", 0))

    @property
    def measured(self) -> dict[str, Any]:
        """How its answers were asked for and judged."""
        return {key: value for key, value in self.record.config.get("evaluate", {}).items() if key not in _FREE}

    @property
    def kind(self) -> str:
        """The same for runs that differ by their seed only."""
        config = {key: value for key, value in self.record.config.items() if key != "seed"}
        data = {name: one.sha256 for name, one in self.record.data.items()}
        return json.dumps([self.stage, self.record.model.sha256, data, config], sort_keys=True, default=str)


class _Group(NamedTuple):
    name: str
    runs: list[_Run]

    def numbers(self, part: str, metric: str, ids: Sequence[str]) -> Numbers:
        """(runs, rows)."""
        return np.array([[run.numbers[part][metric][row] for row in ids] for run in self.runs], dtype=float)

    def ids(self, part: str, metric: str) -> list[str]:
        """Rows for which every run has a number, in the first run's order."""
        each = [run.numbers.get(part, {}).get(metric, {}) for run in self.runs]
        return [row for row in each[0] if all(one.get(row) is not None for one in each)]


def compare(
    paths: Sequence[Path],
    stage: Stage = "after",
    sets: Collection[str] = (),
    metrics: Collection[str] = (),
    seed: int = 0,
) -> Comparison:
    """Set every arm against the first over the same rows. Of a single run, after is set against before.

    Args:
        paths: run directories, or their records; runs that differ by their seed only make up one arm.
        stage: which stage of each run.
        sets: only these sets; empty: all.
        metrics: only these metrics; empty: all.
        seed: of resampled rows and swaps.

    Raises:
        UserError: no finished run, another data set of the same name, an unknown set or metric, or a single arm.
    """
    folders = [path.parent if path.name == RECORD_FILE else path for path in paths]
    if twice := [str(path) for place, path in enumerate(folders) if path in folders[:place]]:
        raise UserError(f"{twice[0]}: named twice")
    stages: tuple[Stage, ...] = ("before", "after") if len(folders) == 1 else (stage,)
    groups = _grouped([run for path in folders for run in _read(path, stages)])
    if len(groups) < 2:
        raise UserError(f"{paths[0]}: all runs differ by their seed only, so there is nothing to compare them with")
    _check_alike(groups)
    chosen = list(_chosen(groups, sets, metrics))
    arms = [_arm(group, chosen) for group in groups]
    found: list[tuple[_Group, str, str, Paired]] = []
    left_out: list[str] = []
    for group in groups[1:]:
        for part, metric in chosen:
            here, there = groups[0].ids(part, metric), set(group.ids(part, metric))
            common = [row for row in here if row in there]
            if not common:
                left_out.append(f"{group.name}: {part}/{metric}")
                continue
            first, second = (one.numbers(part, metric, common) for one in (groups[0], group))
            found.append((group, part, metric, paired(first, second, _kind(metric).aggregate, seed)))
    corrected = holm([one.p for _, _, _, one in found])
    differences = [
        _difference(group, part, metric, one, p) for (group, part, metric, one), p in zip(found, corrected, strict=True)
    ]
    return Comparison(arms=arms, differences=differences, seed=seed, left_out=left_out)


def _read(folder: Path, stages: Sequence[Stage]) -> Iterator[_Run]:
    record = read_record(folder)
    numbers = read_items(folder / ITEMS_FILE)
    for stage in stages:
        if stage not in numbers:
            raise UserError(f"{folder / ITEMS_FILE}: no rows of stage '{stage}'")
        yield _Run(str(folder), stage, record, numbers[stage])


def _grouped(runs: Sequence[_Run]) -> list[_Group]:
    """Runs by kind, in the order of their first."""
    kinds: dict[str, list[_Run]] = {}
    for run in runs:
        some = kinds.setdefault(run.kind, [])
        if same := [one.path for one in some if one.seed == run.seed]:
            raise UserError(f"{run.path}: the same run as {same[0]}, with the same seed: it would count twice")
        some.append(run)
    groups = []
    for some in kinds.values():
        name = some[0].path if len(some) == 1 else f"{some[0].path} and {len(some) - 1} more"
        both_stages = len({run.stage for run in runs}) > 1
        groups.append(_Group(some[0].stage if both_stages else name, some))
    return groups


def _check_alike(groups: Sequence[_Group]) -> None:
    """Refuse sets of one name with other rows, and answers that were asked for or judged in another way."""
    first = groups[0].runs[0]
    for run in (run for group in groups for run in group.runs):
        for key in dict.fromkeys([*first.measured, *run.measured]):
            here, there = run.measured.get(key), first.measured.get(key)
            if here != there:
                raise UserError(f"{run.path}: measured with evaluate.{key} = {here!r}, but {first.path} with {there!r}")
        for name, print_ in run.record.data.items():
            known = first.record.data.get(name)
            if known is not None and known.sha256 != print_.sha256:
                raise UserError(
                    f"{run.path}: its {name} rows ({print_.source}) are not those of {first.path} ({known.source})"
                )


def _chosen(groups: Sequence[_Group], sets: Collection[str], metrics: Collection[str]) -> Iterator[tuple[str, str]]:
    """Sets and metrics of the first arm that have any number."""
    first = groups[0].runs[0].numbers
    known = {metric for some in first.values() for metric in some}
    for wanted, names, what in ((sets, set(first), "set"), (metrics, known, "metric")):
        if unknown := sorted(set(wanted) - names):
            raise UserError(f"--{what}: no {what} '{unknown[0]}' in {groups[0].name}{near(unknown[0], names)}")
    for part, by_metric in first.items():
        for metric in by_metric:
            wanted_here = (not sets or part in sets) and (not metrics or metric in metrics)
            if wanted_here and groups[0].ids(part, metric):
                yield part, metric


def _arm(group: _Group, chosen: Sequence[tuple[str, str]]) -> Arm:
    scores = []
    for part, metric in chosen:
        if ids := group.ids(part, metric):
            runs = [float(one) for one in _kind(metric).aggregate(group.numbers(part, metric, ids))]
            over = over_seeds(runs)
            scores.append(ArmScore(set=part, metric=metric, mean=over.mean, low=over.low, high=over.high, runs=runs))
    return Arm(
        name=group.name,
        stage=group.runs[0].stage,
        recipe=group.runs[0].record.recipe,
        runs=[run.path for run in group.runs],
        seeds=[run.seed for run in group.runs],
        scores=scores,
    )


def _difference(group: _Group, part: str, metric: str, found: Paired, p_holm: float) -> Difference:
    score = group.runs[0].record.after.get(part, {}).get(metric)
    better = score.better if score is not None else "neither"
    return Difference(
        arm=group.name,
        set=part,
        metric=metric,
        better=better,
        **found._asdict(),
        p_holm=p_holm,
        shown=found.shown,
        sentence=sentence(found, better, p_holm),
    )


def sentence(found: Paired, better: Better, p_holm: float) -> str:
    """What may be said of a difference, and no more."""
    if not found.shown:
        return "no difference shown"
    way = "higher" if found.difference > 0 else "lower"
    worth = "" if better == "neither" else f", which is {'wanted' if way == better else 'not wanted'}"
    doubt = "" if p_holm < LEVEL else "; not certain among so many comparisons"
    return f"{way}{worth}{doubt}"


def _kind(metric: str) -> type[Metric]:
    return plugins.find(FOLDER, metric, Metric)  # type: ignore[type-abstract]
