"""One self-contained page for a run: it opens offline and shows no text that the run did not store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from expunge.core.files import write_atomic
from expunge.core.records import Frozen, Record
from expunge.reports.aggregates import wholes
from expunge.reports.answer_kinds import COLUMNS, MEANINGS, kind_rows
from expunge.reports.examples import Pair, StoredAnswer, pair, read_items
from expunge.reports.formats import ABSENT, SPLITS, numbers_only, ordered
from expunge.reports.key_numbers import key_numbers, short_verdict
from expunge.reports.localization import chosen_layers, curve_chart
from expunge.reports.metric_texts import headline_metrics, metric_meaning
from expunge.reports.page import render
from expunge.reports.robustness import robustness_section
from expunge.reports.run_charts import run_charts
from expunge.reports.score_table import Row, comparison, headline
from expunge.reports.squeeze import squeeze_section
from expunge.reports.verdict import Outcome, verdict

TEMPLATE = "report.html.j2"
MOST_ANSWERS = 200
"""Examples shown per split; the rest stay in items.parquet, so that a page of thousands of rows still opens."""

LABELS: dict[Outcome, str] = {
    "forgotten": "Forgotten",
    "partly": "Partly forgotten",
    "not forgotten": "Not forgotten",
    "cannot be told": "Cannot be told",
    "no measure": "No measure",
}


class Measure(Frozen):
    """One metric over all splits."""

    name: str
    explanation: str
    references: str
    rows: list[Row]

    @property
    def present(self) -> list[Row]:
        """Splits that have a value at some stage."""
        return [row for row in self.rows if not row.absent]

    @property
    def missing(self) -> dict[str, str]:
        """Why splits have none -> which they are."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.absent:
                found.setdefault("; ".join(row.reasons), []).append(row.split)
        return {why: ", ".join(splits) for why, splits in found.items()}


class Answers(Frozen):
    """The examples of one split on the page."""

    split: str
    total: int
    pairs: list[Pair]


def write_html(record: Record, run_dir: Path, path: Path, items: Sequence[StoredAnswer] | None = None) -> None:
    """Write the report of a run to `path`.

    Args:
        record: the run.
        run_dir: its directory; the name is shown, and items are read from it unless given.
        path: the page; replaced in one move, so that a reader never meets half of it.
        items: the examples to show; default: those of `items.parquet`.
    """
    pairs = pair(read_items(run_dir) if items is None else items)
    page = render(TEMPLATE, **_context(record, run_dir, pairs))
    write_atomic(path, page, private=any(one.has_text for one in pairs))


def _context(record: Record, run_dir: Path, pairs: list[Pair]) -> dict[str, Any]:
    judged = verdict(record)
    rows = comparison(record)
    measures = _measures(rows)
    main = {row.metric for row in headline(rows)}
    figures = run_charts(record)
    squeeze = squeeze_section(record.squeeze, record.guard) if record.squeeze is not None else None
    robustness = robustness_section(record.robustness) if record.robustness is not None else None
    located = [curve_chart(curve, chosen_layers(record.selection)) for curve in record.selection.curves]
    sections = [section for section in (squeeze, robustness) if section is not None]
    label = LABELS[judged.outcome]
    harmed = judged.outcome in ("forgotten", "partly") and judged.cost == "harmed"
    return {
        "charts": [*figures, *located, *(chart for section in sections for chart in section.charts)],
        "record": record,
        "run_name": run_dir.name,
        "created": record.provenance.created.replace("T", " ")[:16],
        "verdict": judged,
        "summary": short_verdict(judged.outcome, judged.cost),
        "key_numbers": key_numbers(record),
        "contents": _contents(robustness is not None, bool(wholes(record)), squeeze is not None),
        "label": f"{label}, at a cost" if harmed else label,
        "splits": SPLITS,
        "absent": ABSENT,
        "main": [measure for measure in measures if measure.name in main],
        "others": [measure for measure in measures if measure.name not in main],
        "wholes": wholes(record),
        "kinds": kind_rows(record),
        "kind_columns": COLUMNS,
        "kind_meanings": MEANINGS,
        "run_charts": figures,
        "squeeze": squeeze,
        "robustness": robustness,
        "located": located,
        "has_text": any(one.has_text for one in pairs),
        "answers": _answers(pairs),
        "evidence": numbers_only(record.selection.evidence),
        "config": json.dumps(record.config, indent=2, ensure_ascii=False, default=str),
    }


def _contents(robust: bool, aggregates: bool, squeezed: bool) -> dict[str, str]:
    """Anchor -> title of every section of the page, in order."""
    sections = {
        "not-tested": "What was not tested",
        "scores": "Before and after",
        "robustness": "Robustness" if robust else "",
        "aggregates": "Aggregates" if aggregates else "",
        "figures": "Figures",
        "squeezing": "Squeezing" if squeezed else "",
        "answers": "Answers side by side",
        "moved": "Data and weights",
        "time": "Time and memory",
        "repeat": "Repeat this run",
    }
    return {anchor: title for anchor, title in sections.items() if title}


def _measures(rows: list[Row]) -> list[Measure]:
    return [
        Measure(
            name=metric,
            explanation=metric_meaning(metric),
            references="; ".join(
                dict.fromkeys(row.reference for row in rows if row.metric == metric and row.reference)
            ),
            rows=[row for row in rows if row.metric == metric],
        )
        for metric in ordered((row.metric for row in rows), headline_metrics())
    ]


def _answers(pairs: list[Pair]) -> list[Answers]:
    found = []
    for split in dict.fromkeys(one.split for one in pairs):
        some = [one for one in pairs if one.split == split]
        found.append(Answers(split=split, total=len(some), pairs=some[:MOST_ANSWERS]))
    return found
