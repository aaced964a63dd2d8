"""Compares arms over the same rows, with tests; an arm is one model, or runs of several seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.records import Better, Frozen
from expunge.evaluate.aliases import Named, named
from expunge.evaluate.base import Metric
from expunge.evaluate.compare_inputs import Group, cautions, read_groups
from expunge.evaluate.paired import Paired, holm, over_seeds, paired
from expunge.evaluate.score import FOLDER

LEVEL = 0.05
"""Probability of any false difference among all that are reported."""


class ArmScore(Frozen):
    """One score of an arm, over its runs."""

    set: str
    metric: str
    mean: float = Field(description="Mean over runs")
    low: float | None = Field(None, description="Lower end of the 95% t interval over runs; none for a single run")
    high: float | None = Field(None, description="Upper end of the same")
    runs: list[float] = Field(description="The score of each run")


class Arm(Frozen):
    """One side of a comparison."""

    name: str
    stage: str = Field(description="before or after of a run; of an evaluation its model")
    recipe: str = Field(description="Of a run; empty where it is not known")
    runs: list[str] = Field(description="Directories or models")
    seeds: list[int] = Field(description="Of their trainings; empty where they are not known")
    scores: list[ArmScore]


class Difference(Frozen):
    """An arm less the first arm, over the rows that both have a number for."""

    arm: str
    set: str
    metric: str
    better: Better = Field(description="Which direction is wanted")
    n: int = Field(description="Rows")
    clusters: int | None = Field(None, description="Persons or documents that the rows are about, drawn together")
    first: float = Field(description="The first arm's score over these rows")
    second: float = Field(description="This arm's")
    difference: float
    low: float = Field(description="Lower end of the difference's 95% bootstrap interval over rows and runs")
    high: float = Field(description="Upper end of the same")
    p: float = Field(description="Two-sided, by swapping the arms' values row by row")
    p_holm: float = Field(description="The same, corrected for the number of comparisons that are reported together")
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
    warnings: list[str] = Field(default_factory=list, description="What the reader should know before trusting it")


def compare(
    paths: Sequence[Path],
    stage: str = "after",
    sets: Collection[str] = (),
    metrics: Collection[str] = (),
    seed: int = 0,
) -> Comparison:
    """Compare every arm with the first over the same rows, or the stages of a single run with each other.

    Args:
        paths: directories of runs or evaluations, or their records.
        stage: which stage of each run.
        sets: to compare. Default: all.
        metrics: to compare; OpenUnlearning's names are accepted. Default: all.
        seed: of resampled rows and swaps.

    Raises:
        UserError: as `read_groups`, an unknown set or metric, or a single arm.
    """
    groups = read_groups(paths, stage)
    if len(groups) < 2:
        what = "all runs differ by their seed only" if len(groups[0].members) > 1 else "a single model"
        raise UserError(f"{paths[0]}: {what}, so there is nothing to compare it with")
    chosen = list(_chosen(groups[0], sets, metrics))
    found: list[tuple[Group, str, str, Paired]] = []
    left_out: list[str] = []
    for group in groups[1:]:
        for part, metric in chosen:
            there = set(group.ids(part, metric))
            common = [row for row in groups[0].ids(part, metric) if row in there]
            if not common:
                left_out.append(f"{group.name}: {part}/{metric}")
                continue
            first, second = (one.numbers(part, metric, common) for one in (groups[0], group))
            units = groups[0].clusters(part, common)
            found.append((group, part, metric, paired(first, second, _kind(metric).aggregate, seed, units)))
    corrected = holm([one.p for _, _, _, one in found])
    differences = [
        _difference(group, part, metric, one, p) for (group, part, metric, one), p in zip(found, corrected, strict=True)
    ]
    arms = [_arm(group, chosen) for group in groups]
    return Comparison(arms=arms, differences=differences, seed=seed, left_out=left_out, warnings=cautions(groups))


def sentence(found: Paired, better: Better, p_holm: float) -> str:
    """The conclusion that a difference supports."""
    if not found.shown:
        return "no difference shown"
    way = "higher" if found.difference > 0 else "lower"
    worth = "" if better == "neither" else f", which is {'wanted' if way == better else 'not wanted'}"
    doubt = "" if p_holm < LEVEL else "; not certain among so many comparisons"
    return f"{way}{worth}{doubt}"


def _chosen(first: Group, sets: Collection[str], metrics: Collection[str]) -> Iterator[tuple[str, str]]:
    """Sets and metrics of the first arm that have any number."""
    one = first.members[0]
    known = {metric for some in one.numbers.values() for metric in some}
    if unknown := sorted(set(sets) - set(one.numbers)):
        raise UserError(f"--set: no set '{unknown[0]}' in {first.name}{near(unknown[0], one.numbers)}")
    wanted = [named(name) for name in metrics]
    for given, meant in zip(metrics, wanted, strict=True):
        if meant.metric not in known:
            raise UserError(f"--metric: no metric '{given}' in {first.name}{near(given, known)}")
    for part, by_metric in one.numbers.items():
        for metric in by_metric:
            meant_here = not wanted or any(_means(some, metric, one.roles.get(part, part)) for some in wanted)
            if (not sets or part in sets) and meant_here and first.ids(part, metric):
                yield part, metric


def _means(some: Named, metric: str, role: str) -> bool:
    return some.metric == metric and some.role in (None, role)


def _arm(group: Group, chosen: Sequence[tuple[str, str]]) -> Arm:
    scores = []
    for part, metric in chosen:
        if ids := group.ids(part, metric):
            runs = [float(one) for one in _kind(metric).aggregate(group.numbers(part, metric, ids))]
            over = over_seeds(runs)
            scores.append(ArmScore(set=part, metric=metric, mean=over.mean, low=over.low, high=over.high, runs=runs))
    return Arm(
        name=group.name,
        stage=group.members[0].stage,
        recipe=group.members[0].recipe,
        runs=[one.name for one in group.members],
        seeds=[one.seed for one in group.members if one.seed is not None],
        scores=scores,
    )


def _difference(group: Group, part: str, metric: str, found: Paired, p_holm: float) -> Difference:
    score = group.members[0].scores.get(part, {}).get(metric)
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


def _kind(metric: str) -> type[Metric]:
    return plugins.find(FOLDER, metric, Metric)  # type: ignore[type-abstract]
