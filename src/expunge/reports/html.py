"""One self-contained page for a run: it opens offline and shows no text that the run did not store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.core.files import write_atomic
from expunge.core.records import Frozen, Record, Squeeze
from expunge.reports import squeeze
from expunge.reports.aggregates import wholes
from expunge.reports.answer_kinds import COLUMNS, MEANINGS, kind_rows
from expunge.reports.examples import Pair, StoredAnswer, pair, read_items
from expunge.reports.formats import (
    ABSENT,
    SPLITS,
    numbers_only,
    ordered,
)
from expunge.reports.key_numbers import key_numbers, short_verdict
from expunge.reports.metric_texts import headline_metrics, metric_meaning
from expunge.reports.page import environment, plotly_script
from expunge.reports.score_table import Row, comparison, headline
from expunge.reports.verdict import Outcome, verdict

if TYPE_CHECKING:
    from expunge.reports.canvas import Picture

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
    """One metric over all splits, as the page shows it."""

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
    """The examples of one split, as the page shows them."""

    split: str
    total: int
    pairs: list[Pair]


@dataclass(frozen=True)
class Squeezed:
    """The squeezing diagnostic, as the page shows it."""

    sentence: str
    picture: Picture
    counts: Squeeze
    tables: list[squeeze.TextTable]


@dataclass(frozen=True)
class Robust:
    """The robustness card, as the page shows it."""

    sentence: str
    notes: list[str]
    tables: list[squeeze.TextTable]
    pictures: list[Picture]


def write_html(record: Record, run_dir: Path, path: Path, items: Sequence[StoredAnswer] | None = None) -> None:
    """Write the report of a run to `path`.

    Args:
        record: the run.
        run_dir: where it lies; its name is shown, and items are read from it unless given.
        path: the page; replaced in one move, so that a reader never meets half of it.
        items: what to show beside the record; None reads `items.parquet`.
    """
    pairs = pair(read_items(run_dir) if items is None else items)
    page = environment().get_template(TEMPLATE).render(_context(record, run_dir, pairs))
    write_atomic(path, page, private=any(one.has_text for one in pairs))


def _context(record: Record, run_dir: Path, pairs: list[Pair]) -> dict[str, object]:
    from markupsafe import Markup

    from expunge.reports.blocks import chosen_layers, curve_picture
    from expunge.reports.figures import pictures

    judged = verdict(record)
    measures = _measures(comparison(record))
    shown = pictures(record)
    squeezed = _squeezed(record)
    robust = _robust(record)
    located = [curve_picture(curve, chosen_layers(record.selection)) for curve in record.selection.curves]
    more = [*([squeezed.picture] if squeezed else []), *located, *(robust.pictures if robust else [])]
    drawn = [one for one in (*shown, *more) if one.figure is not None]
    label = LABELS[judged.outcome]
    harmed = judged.outcome in ("forgotten", "partly") and judged.cost == "harmed"
    return {
        "record": record,
        "run_name": run_dir.name,
        "created": record.provenance.created.replace("T", " ")[:16],
        "verdict": judged,
        "summary": short_verdict(judged.outcome, judged.cost),
        "key_numbers": key_numbers(record),
        "contents": _contents(robust is not None, bool(wholes(record)), squeezed is not None),
        "label": f"{label}, at a cost" if harmed else label,
        "splits": SPLITS,
        "absent": ABSENT,
        "main": [measure for measure in measures if measure.name in _main(record)],
        "others": [measure for measure in measures if measure.name not in _main(record)],
        "wholes": wholes(record),
        "kinds": kind_rows(record),
        "kind_columns": COLUMNS,
        "kind_meanings": MEANINGS,
        "pictures": shown,
        "squeezed": squeezed,
        "robust": robust,
        "located": located,
        "specs": {one.name: Markup(one.figure.to_json()) for one in drawn if one.figure is not None},
        "plotly": plotly_script() if drawn else "",
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


def _squeezed(record: Record) -> Squeezed | None:
    from expunge.reports.curves import squeezing

    if record.squeeze is None:
        return None
    return Squeezed(
        sentence=squeeze.sentence(record.squeeze),
        picture=squeezing(record.squeeze, record.guard),
        counts=record.squeeze,
        tables=[squeeze.scores(record.squeeze), squeeze.changes(record.squeeze), squeeze.tokens(record.squeeze)],
    )


def _robust(record: Record) -> Robust | None:
    from expunge.reports.robustness import robustness_section
    from expunge.reports.section import pictures, told

    if record.robustness is None:
        return None
    found = robustness_section(record.robustness)
    return Robust(found.sentence, found.notes, [told(table) for table in found.tables], pictures(found))


def _main(record: Record) -> set[str]:
    return {row.metric for row in headline(comparison(record))}


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
