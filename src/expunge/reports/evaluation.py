"""What models know, as a CSV file, a Markdown table and rows for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from expunge.core.records import Evaluation, Score
from expunge.reports.aggregates import aggregate_text
from expunge.reports.words import number

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
            writer.writerow({"model": record.model, "set": name, "role": role, "name": metric, **own})
        for metric, aggregate in record.aggregates.items():
            own = {key: value for key, value in aggregate.model_dump().items() if key in fields}
            writer.writerow({"model": record.model, "set": "all", "name": metric, **own})
    return out.getvalue()


def as_markdown(records: Sequence[Evaluation]) -> str:
    """One row a score, one column a model; what no model has stands below with its reason."""
    head = ["set", "score", *(record.model for record in records)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    absent: dict[str, list[str]] = {}
    for name, metric in dict.fromkeys((name, metric) for record in records for name, _, metric, _ in _scores(record)):
        scores = [record.scores.get(name, {}).get(metric) for record in records]
        if all(score is None or score.value is None for score in scores):
            reason = next((score.reason for score in scores if score is not None and score.reason), "not measured")
            absent.setdefault(reason, []).append(f"{name}/{metric}")
        else:
            lines.append(f"| {name} | {metric} | {' | '.join(map(cell, scores))} |")
    for metric in dict.fromkeys(metric for record in records for metric in record.aggregates):
        found = [record.aggregates.get(metric) for record in records]
        if any(aggregate is not None and aggregate.value is not None for aggregate in found):
            texts = ["-" if aggregate is None else aggregate_text(aggregate) for aggregate in found]
            lines.append(f"| all | {metric} | {' | '.join(texts)} |")
    lines += [f"\nAbsent ({reason}): {', '.join(names)}." for reason, names in absent.items()]
    return "\n".join(lines) + "\n"


def cell(score: Score | None) -> str:
    """Value with its interval; the reference and the chance level where there are any."""
    if score is None or score.value is None:
        return "-"
    interval = "" if score.low is None or score.high is None else f" [{number(score.low)}, {number(score.high)}]"
    return f"{number(score.value)}{interval}"


def terminal_rows(record: Evaluation) -> list[dict[str, object]]:
    """Scores of one model, for a listing."""
    return [
        {
            "set": name,
            "name": metric,
            "value": "absent" if score.value is None else f"{score.value:.3f}",
            "interval": "" if score.low is None else f"[{score.low:.3f}, {score.high:.3f}]",
            "n": score.n,
            "note": score.reason or score.reference or "",
        }
        for name, _, metric, score in _scores(record)
    ]


def aggregate_rows(record: Evaluation) -> list[dict[str, object]]:
    """Aggregates of one model with their parts, for a listing."""
    return [
        {
            "name": name,
            "value": aggregate_text(aggregate),
            "note": aggregate.reason or ", ".join(f"0 because of {part}" for part in aggregate.zeroed_by),
            "parts": "; ".join(
                f"{part.split}/{part.name} {number(part.value)}"
                for part in aggregate.components
                if part.value is not None
            ),
        }
        for name, aggregate in record.aggregates.items()
    ]


def _scores(record: Evaluation) -> Iterator[tuple[str, str, str, Score]]:
    for name, metrics in record.scores.items():
        for metric, score in metrics.items():
            yield name, record.roles.get(name, name), metric, score
