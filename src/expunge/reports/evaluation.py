"""Scores of models, as a CSV file, a Markdown table and tables for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from expunge.core.records import Aggregate, Evaluation, Score
from expunge.reports.aggregates import print_parts
from expunge.reports.formats import ABSENT, score_text

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

CSV_FILE = "scores.csv"
TABLE_FILE = "table.md"


def as_csv(records: Sequence[Evaluation]) -> str:
    """One line for each score and aggregate of each model; no value is an empty cell."""
    out = io.StringIO()
    fields = ("model", "set", "role", "name", "value", "low", "high", "n", "better", "chance", "reference", "reason")
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    for record in records:
        for name, role, metric, score in _scores(record):
            own = {key: value for key, value in score.model_dump().items() if key in fields}
            writer.writerow(_inert({"model": record.model, "set": name, "role": role, "name": metric, **own}))
        for metric, aggregate in record.aggregates.items():
            own = {key: value for key, value in aggregate.model_dump().items() if key in fields}
            writer.writerow(_inert({"model": record.model, "set": "all", "name": metric, **own}))
    return out.getvalue()


def _inert(row: dict[str, Any]) -> dict[str, Any]:
    """Text that a spreadsheet would take for a formula, with an apostrophe before it."""
    return {
        key: f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
        for key, value in row.items()
    }


def as_markdown(records: Sequence[Evaluation]) -> str:
    """One row per score and one column per model; scores that no model has are listed below with the reason."""
    head = ["set", "score", *(record.model for record in records)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    present, absent = _side_by_side(records)
    lines += [f"| {name} | {metric} | {' | '.join(map(_cell, scores))} |" for name, metric, scores in present]
    for metric, found in _aggregates(records).items():
        if any(one is not None and one.value is not None for one in found):
            texts = ["-" if one is None else score_text(one) for one in found]
            lines.append(f"| all | {metric} | {' | '.join(texts)} |")
    listed = {reason: [f"{name}/{metric}" for name, metric in some] for reason, some in absent.items()}
    lines += [f"\nAbsent ({reason}): {', '.join(names)}." for reason, names in listed.items()]
    lines += [f"\nWarning: {warning}" for warning in warnings_of(records)]
    return "\n".join(lines) + "\n"


def warnings_of(records: Sequence[Evaluation]) -> list[str]:
    """Each warning once; of several models, one that is not about all of them begins with its model."""
    found: dict[str, list[str]] = {}
    for record in records:
        for warning in record.warnings:
            found.setdefault(warning, []).append(record.model)
    return [
        warning if len(models) == len(records) else f"{', '.join(models)}: {warning}"
        for warning, models in found.items()
    ]


def print_evaluation(records: Sequence[Evaluation], terminal: Terminal) -> None:
    """Print warnings, all scores side by side, absent ones with their reason, and the aggregates."""
    for record in records:
        of = f" ({record.model})" if len(records) > 1 else ""
        for warning in record.warnings:
            terminal.prose(f"Warning{of}: {warning}", style="bold yellow")
    titles = [f"{name} [95%]" for name in short_names([record.model for record in records])]
    present, absent = _side_by_side(records)
    rows = [[part, metric, *map(_cell, scores), _counts(scores)] for part, metric, scores in present]
    terminal.table(["set", "score", *(titles if len(records) > 1 else ["value [95%]"]), "n"], rows, grouped=True)
    for reason, pairs in absent.items():
        sets: dict[str, list[str]] = {}
        for part, metric in pairs:
            sets.setdefault(metric, []).append(part)
        listed = ", ".join(f"{metric} ({', '.join(parts)})" for metric, parts in sets.items())
        terminal.prose(f"{ABSENT}, {reason}: {listed}")
    for reference, compared in _references(records).items():
        terminal.prose(f"{', '.join(compared)}: compared with {reference}", style="dim")
    _print_aggregates(records, titles, terminal)


def short_names(models: Sequence[str]) -> list[str]:
    """Names that distinguish models: the shortest ends of their paths that differ, from one part up."""
    parts = [[part for part in re.split(r"[/\\]", model) if part] or [model] for model in models]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(some[-depth:]) for some in parts]
        if len(set(names)) == len(set(models)):
            return names
    return list(models)


def _print_aggregates(records: Sequence[Evaluation], titles: Sequence[str], terminal: Terminal) -> None:
    """Print aggregates that any model has, why others are absent, and their parts."""
    rows: list[list[str]] = []
    notes: dict[str, list[str]] = {}
    for name, found in _aggregates(records).items():
        if any(one is not None and one.value is not None for one in found):
            rows.append([name, *map(_cell, found)])
        else:
            why = next((one.reason for one in found if one is not None and one.reason), "not measured")
            notes.setdefault(why, []).append(name)
        zeros = [part for one in found if one is not None for part in one.zeroed_by]
        if zeros:
            notes.setdefault(f"0 because of {', '.join(dict.fromkeys(zeros))}", []).append(name)
    terminal.table(["aggregate", *(titles if len(records) > 1 else ["value [95%]"])], rows)
    for why, names in notes.items():
        terminal.prose(f"{', '.join(names)}: {why}")
    if rows:
        for record, title in zip(records, titles, strict=True):
            of = "" if len(records) == 1 else f" of {title.removesuffix(' [95%]')}"
            print_parts(record.aggregates, f"their parts{of}", terminal)


def _side_by_side(
    records: Sequence[Evaluation],
) -> tuple[list[tuple[str, str, list[Score | None]]], dict[str, list[tuple[str, str]]]]:
    """Set, metric and scores that any model has, and reason -> set and metric of the scores that none has."""
    present: list[tuple[str, str, list[Score | None]]] = []
    absent: dict[str, list[tuple[str, str]]] = {}
    for name, metric in dict.fromkeys((name, metric) for record in records for name, _, metric, _ in _scores(record)):
        scores = [record.scores.get(name, {}).get(metric) for record in records]
        if any(score is not None and score.value is not None for score in scores):
            present.append((name, metric, scores))
        else:
            reason = next((score.reason for score in scores if score is not None and score.reason), "not measured")
            absent.setdefault(reason, []).append((name, metric))
    return present, absent


def _aggregates(records: Sequence[Evaluation]) -> dict[str, list[Aggregate | None]]:
    """Name -> the aggregate of each model."""
    names = dict.fromkeys(name for record in records for name in record.aggregates)
    return {name: [record.aggregates.get(name) for record in records] for name in names}


def _cell(score: Score | Aggregate | None) -> str:
    return "-" if score is None or score.value is None else score_text(score)


def _counts(scores: Sequence[Score | None]) -> str:
    """Items behind the values; all counts where models differ."""
    return " / ".join(dict.fromkeys(one.counted for one in scores if one is not None and one.value is not None))


def _references(records: Sequence[Evaluation]) -> dict[str, list[str]]:
    """Reference that scores depend on besides the data -> names of the scores."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for _, _, metric, score in _scores(record):
            if score.reference and score.value is not None:
                found.setdefault(score.reference, {})[metric] = None
    return {reference: list(metrics) for reference, metrics in found.items()}


def _scores(record: Evaluation) -> Iterator[tuple[str, str, str, Score]]:
    for name, metrics in record.scores.items():
        for metric, score in metrics.items():
            yield name, record.roles.get(name, name), metric, score
