"""What reports say about metrics, read from their classes without importing them."""

from __future__ import annotations

from functools import cache
from typing import Any

from expunge.core.plugins import attribute, describe, names

FOLDERS = ("evaluate/metrics", "evaluate/set_metrics", "evaluate/whitebox")


@cache
def metric_title(name: str) -> str:
    """A metric's name for readers: `rouge_l_recall` -> `ROUGE-L recall`, `my_package.mine:MyMetric` -> `MyMetric`.

    Any name gets one: also those of scores that contain a metric's name (`1 - rouge_l_recall`), of a user's own metrics
    and of metrics in old records.
    """
    if name in _shipped():
        return _read(name, "title") or name.replace("_", " ")
    title = name.rpartition(":")[2]
    for metric in sorted(_shipped(), key=len, reverse=True):
        title = title.replace(metric, metric_title(metric)) if metric in title else title
    return title.replace("_", " ")


@cache
def metric_meaning(name: str) -> str:
    """One sentence on what a metric measures; empty for a metric that this package does not have."""
    if name not in _shipped():
        return ""
    idea = describe(_shipped()[name], name).summary.partition(": ")[2]
    return _read(name, "meaning") or idea[:1].upper() + idea[1:]


@cache
def headline_metrics() -> tuple[str, ...]:
    """Metrics that a report shows first, in their order."""
    places = {name: _read(name, "headline") for name in _shipped()}
    return tuple(sorted((name for name, place in places.items() if place is not None), key=lambda name: places[name]))


@cache
def utility_metrics() -> tuple[str, ...]:
    """Metrics of knowledge that should stay; the first that both stages of a run have measures its utility."""
    return tuple(name for name in headline_metrics() if _read(name, "utility"))


def probe(name: str) -> str:
    """A metric's test of the forget rows as a report names it, e.g. `paraphrased questions`."""
    return _read(name, "probe") or metric_title(name)


@cache
def leak_marks() -> dict[str, str]:
    """Metric -> label of an answer in which it finds the fact, headline metrics first."""
    marks = {name: _read(name, "leak_mark") for name in dict.fromkeys([*headline_metrics(), *_shipped()])}
    return {name: mark for name, mark in marks.items() if mark}


@cache
def _shipped() -> dict[str, str]:
    """Every metric of the package -> its folder."""
    return {name: folder for folder in FOLDERS for name in names(folder)}


def _read(name: str, key: str) -> Any:
    folder = _shipped().get(name)
    return None if folder is None else attribute(folder, name, key)
