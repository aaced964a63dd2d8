"""Reads what is compared: stages of runs and models of evaluations; runs that differ only by their seed are one arm."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from expunge.core.errors import UserError
from expunge.core.records import (
    EVALUATION_FILE,
    ITEMS_FILE,
    RECORD_FILE,
    DataPrint,
    Evaluation,
    Scores,
    read_record,
)
from expunge.evaluate.items import ClustersById, NumbersById, read_clusters, read_items
from expunge.numerics.intervals import Numbers

STAGES = ("before", "after")
_FREE = ("metrics", "set_metrics", "max_rows", "token_budget", "cache", "kinds", "probe_splits")
"""Options of a measurement that leave a row's numbers as they are."""
_LAYOUT = ("template", "chat_template", "template_options", "system_prompt")
"""Options of a model that decide what it reads besides the rows."""


class Measurement(NamedTuple):
    """The measurement of one model, as stored on disk."""

    name: str
    stage: str
    """`before` or `after` of a run; of an evaluation its model."""
    recipe: str
    seed: int | None
    """Of the training, if known."""
    kind: str
    """Equal for runs that differ only by their seed."""
    settings: Mapping[str, Any]
    """Options of the measurement."""
    data: Mapping[str, DataPrint]
    roles: Mapping[str, str]
    scores: Scores
    numbers: NumbersById
    clusters: ClustersById
    warnings: Sequence[str] = ()
    """Warnings about its scores."""
    layout: Mapping[str, Any] | None = None
    """Options that lay out the prompts, if known."""


class Group(NamedTuple):
    """One arm."""

    name: str
    members: list[Measurement]

    def numbers(self, part: str, metric: str, ids: Sequence[str]) -> Numbers:
        """(members, rows)."""
        return np.array([[one.numbers[part][metric][row] for row in ids] for one in self.members], dtype=float)

    def clusters(self, part: str, ids: Sequence[str]) -> list[int | None]:
        """Cluster of each row."""
        known = self.members[0].clusters[part]
        return [known[row] for row in ids]

    def ids(self, part: str, metric: str) -> list[str]:
        """Rows for which every member has a number, in the first one's order."""
        each = [one.numbers.get(part, {}).get(metric, {}) for one in self.members]
        return [row for row in each[0] if all(one.get(row) is not None for one in each)]


def read_groups(paths: Sequence[Path], stage: str) -> list[Group]:
    """Arms in the order of their first member. Of a single run, both stages.

    Args:
        paths: directories of runs or evaluations, or the record in one.
        stage: which stage of each run.

    Raises:
        UserError: nothing finished there, a damaged record, a run that would count twice, sets of one name with other
            rows, or answers that were asked for in another way.
    """
    folders = [path.parent if path.name in (RECORD_FILE, EVALUATION_FILE) else path for path in paths]
    if twice := [str(path) for place, path in enumerate(folders) if path in folders[:place]]:
        raise UserError(f"{twice[0]}: named twice")
    alone = len(folders) == 1 and not (folders[0] / EVALUATION_FILE).is_file()
    stages = STAGES if alone else (stage,)
    found = [one for folder in folders for one in _read(folder, stages)]
    kinds: dict[str, list[Measurement]] = {}
    for one in found:
        some = kinds.setdefault(one.kind, [])
        if same := [other.name for other in some if other.seed == one.seed]:
            raise UserError(f"{one.name}: the same as {same[0]}, with the same seed: it would count twice")
        some.append(one)
    for one in found[1:]:
        _check_alike(found[0], one)
    return [Group(_name(some, alone), some) for some in kinds.values()]


def _name(members: Sequence[Measurement], alone: bool) -> str:
    first = members[0]
    if alone:
        return first.stage
    return first.name if len(members) == 1 else f"{first.name} and {len(members) - 1} more"


def _read(folder: Path, stages: Sequence[str]) -> Iterator[Measurement]:
    return _of_evaluation(folder) if (folder / EVALUATION_FILE).is_file() else _of_run(folder, stages)


def _of_run(folder: Path, stages: Sequence[str]) -> Iterator[Measurement]:
    record = read_record(folder)
    numbers, clusters = read_items(folder / ITEMS_FILE), read_clusters(folder / ITEMS_FILE)
    data = {name: one.sha256 for name, one in record.data.items()}
    config = {key: value for key, value in record.config.items() if key != "seed"}
    for stage in stages:
        if stage not in numbers:
            raise UserError(f"{folder / ITEMS_FILE}: no rows of stage '{stage}'")
        yield Measurement(
            name=str(folder),
            stage=stage,
            recipe=record.recipe,
            seed=int(record.config.get("seed", 0)),
            kind=json.dumps([stage, record.model.sha256, data, config], sort_keys=True, default=str),
            settings=_settings(record.config.get("evaluate", {})),
            data=record.data,
            roles={name: name for name in numbers[stage]},
            scores=record.after,
            numbers=numbers[stage],
            clusters=clusters[stage],
            warnings=record.warnings,
            layout={key: value for key, value in record.config.get("model", {}).items() if key in _LAYOUT},
        )


def _of_evaluation(folder: Path) -> Iterator[Measurement]:
    path = folder / EVALUATION_FILE
    try:
        records = TypeAdapter(list[Evaluation]).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: not an evaluation's records: {where}: {first['msg']}") from None
    numbers, clusters = read_items(folder / ITEMS_FILE), read_clusters(folder / ITEMS_FILE)
    for record in records:
        if record.model not in numbers:
            raise UserError(f"{folder / ITEMS_FILE}: no rows of '{record.model}'")
        yield Measurement(
            name=record.model,
            stage=record.model,
            recipe="",
            seed=None,
            kind=json.dumps([record.model, record.sha256]),
            settings=_settings(record.config),
            data=record.data,
            roles=record.roles,
            scores=record.scores,
            numbers=numbers[record.model],
            clusters=clusters[record.model],
            warnings=record.warnings,
        )


def _settings(evaluate: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in evaluate.items() if key not in _FREE}


def _check_alike(first: Measurement, other: Measurement) -> None:
    for name, print_ in other.data.items():
        known = first.data.get(name)
        if known is not None and known.sha256 != print_.sha256:
            raise UserError(
                f"{other.name}: its {name} rows ({print_.source}) are not those of {first.name} ({known.source})"
            )
    if not (first.settings and other.settings):
        return
    for key in dict.fromkeys([*first.settings, *other.settings]):
        here, there = other.settings.get(key), first.settings.get(key)
        if here != there:
            raise UserError(f"{other.name}: measured with evaluate.{key} = {here!r}, but {first.name} with {there!r}")


def cautions(groups: Sequence[Group]) -> list[str]:
    """Warnings about a comparison: different layouts of the prompts, and the warnings of each arm."""
    first = groups[0].members[0]
    found = []
    for one in (member for group in groups for member in group.members):
        if first.layout is not None and one.layout is not None:
            keys = [key for key in _LAYOUT if (first.layout.get(key) or None) != (one.layout.get(key) or None)]
            if keys:
                found.append(
                    f"{one.name} and {first.name} were asked in different layouts (model.{keys[0]}): that alone "
                    "may make a difference."
                )
    by_warning: dict[str, list[str]] = {}
    for group in groups:
        for warning in dict.fromkeys(warning for member in group.members for warning in member.warnings):
            by_warning.setdefault(warning, []).append(group.name)
    return [*found, *(f"{', '.join(names)}: {warning}" for warning, names in by_warning.items())]
