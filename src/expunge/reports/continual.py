"""A sequence of requests as tables: how much of each request the model still knows after each step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from expunge.core.files import write_atomic
from expunge.core.records import KEYWORD_METRICS, Frozen, Score, SequenceRecord
from expunge.reports.formats import ABSENT, number, score_text
from expunge.reports.leaks_and_utility import UTILITY_SPLITS, fallback_metrics
from expunge.reports.metric_texts import metric_title, utility_metrics
from expunge.reports.page import render
from expunge.reports.verdict import KEPT_SHARE, PLAIN_LEAK, WORST_LEAK

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

PAGE = "sequence.html"
_NOW = "*"
_MISSING = Score(value=None)


class Line(Frozen):
    """One request, or one split or aggregate that should stay, over the steps."""

    name: str
    scores: list[Score]
    request: int | None = None
    """The step that forgets it; None for what should stay."""

    def state(self, step: int) -> str:
        """Whether the step comes before, at or after the one that forgets the line; `kept` for what should stay."""
        if self.request is None:
            return "kept"
        return "later" if step < self.request else "now" if step == self.request else "earlier"

    def value(self, step: int) -> float:
        """The score after a step, 0 where it is absent."""
        return self.scores[step].value or 0.0

    def gone(self, step: int) -> bool:
        """Whether the line is forgotten after a step, by the limits of a run's verdict."""
        upper = max(self.value(step), self.scores[step].high or 0.0)
        return self.value(step) <= PLAIN_LEAK and upper <= WORST_LEAK


class SequenceTable(Frozen):
    """One metric, or model utility: a line for each request, or for everything that should stay."""

    metric: str
    of: Literal["request", "aggregate", "split"]
    lines: list[Line]


class SequenceOutcome(Frozen):
    """The sequence so far, as a label and one short sentence."""

    label: str
    tone: str
    summary: str


def sequence_tables(record: SequenceRecord) -> list[SequenceTable]:
    """The leak metrics over the requests, then the aggregates and the splits that should stay."""
    start, tables = record.steps[0], []
    for metric in (*KEYWORD_METRICS, *fallback_metrics()):
        if any(scores.get(metric, _MISSING).value is not None for scores in start.requests):
            lines = [
                Line(
                    name=f"{place}: {request}",
                    scores=[step.requests[place - 1].get(metric, _MISSING) for step in record.steps],
                    request=place,
                )
                for place, request in enumerate(record.requests, start=1)
            ]
            tables.append(SequenceTable(metric=metric, of="request", lines=lines))
    aggregates = {
        name: [step.aggregates[name] for step in record.steps]
        for name, found in start.aggregates.items()
        if found.value is not None
    }
    whole = [
        Line(name=name, scores=[Score(value=one.value, low=one.low, high=one.high) for one in found])
        for name, found in aggregates.items()
    ]
    tables += [SequenceTable(metric="model utility", of="aggregate", lines=whole)] if whole else []
    for metric in utility_metrics():
        kept = [
            Line(name=split, scores=[step.utility[split][metric] for step in record.steps])
            for split in UTILITY_SPLITS
            if start.utility.get(split, {}).get(metric, _MISSING).value is not None
        ]
        if kept:
            return [*tables, SequenceTable(metric=metric, of="split", lines=kept)]
    return tables


def verdict(record: SequenceRecord) -> str:
    """One sentence: what is left of the requests so far, the worst of them, and what the rest lost."""
    tables, last = sequence_tables(record), len(record.steps) - 1
    if not tables or not last:
        return f"No step of {len(record.requests)} is done yet."
    worst = max(_done(tables, last), key=lambda line: line.value(last))
    sentence = (
        f"After {last} of {len(record.requests)} requests, {metric_title(tables[0].metric)} is at most "
        f"{score_text(worst.scores[last])} on the rows to forget (worst: request {worst.request})"
    )
    changes = [f"{line.name} {number(line.value(0))} to {score_text(line.scores[last])}" for line in _rest(tables)]
    return f"{sentence}; of the rest: {', '.join(changes)}." if changes else f"{sentence}."


def outcome(record: SequenceRecord) -> SequenceOutcome:
    """Whether the requests so far are forgotten after the last step, by the limits of a run's verdict."""
    tables, last = sequence_tables(record), len(record.steps) - 1
    done = _done(tables, last)
    known = [line for line in done if line.scores[last].value is not None and line.scores[0].value is not None]
    if not last or not known:
        return SequenceOutcome(label="No measure", tone="", summary="No request was carried out and measured yet.")
    gone = [line for line in known if line.gone(last)]
    harmed = [line.name for line in _rest(tables) if line.value(last) < KEPT_SHARE * line.value(0)]
    cost = f", at a cost to {', '.join(harmed)}" if harmed else ""
    label, tone = ("Forgotten", "forgotten") if len(gone) == len(done) else ("Partly forgotten", "partly")
    if not gone:
        label, tone = "Not forgotten", "not-forgotten"
    if harmed and tone == "forgotten":
        tone = "harmed"
    count = f"{len(gone)} of the {len(done)} requests carried out so far {'is' if len(gone) == 1 else 'are'}"
    return SequenceOutcome(label=label, tone=tone, summary=f"{count} forgotten, as far as it was tested{cost}.")


def print_sequence(record: SequenceRecord, terminal: Terminal) -> None:
    """Print the sentence and every table."""
    found = outcome(record)
    terminal.prose(f"\n{found.label}: {found.summary}", style="bold")
    terminal.prose(verdict(record))
    for table in sequence_tables(record):
        rows = [[line.name, *(_cell(line, step) for step in range(len(record.steps)))] for line in table.lines]
        terminal.table([table.of, *_steps(record)], rows, title=metric_title(table.metric))
    terminal.print(f"{_NOW} the step that was to forget it", style="dim")


def write_sequence(record: SequenceRecord, out: Path) -> Path:
    """Write the page of a sequence; replaced in one move."""
    context = {"verdict": verdict(record), "outcome": outcome(record), "tables": sequence_tables(record)}
    path = out / PAGE
    write_atomic(path, render("sequence.html.j2", [], record=record, steps=_steps(record), **context))
    return path


def _done(tables: list[SequenceTable], last: int) -> list[Line]:
    """The requests that were carried out, by the first metric."""
    return [line for line in tables[0].lines if line.request is not None and line.request <= last] if tables else []


def _rest(tables: list[SequenceTable]) -> list[Line]:
    """What should stay, by the last table."""
    return [line for line in tables[-1].lines if line.request is None]


def _steps(record: SequenceRecord) -> list[str]:
    return [f"step {step.step}" if step.step else "before" for step in record.steps]


def _cell(line: Line, step: int) -> str:
    value = line.scores[step].value
    return (ABSENT if value is None else number(value)) + (_NOW if line.state(step) == "now" else "")
