"""A sequence of requests as a matrix: what is still known of each request after each step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from expunge.core.files import write_atomic
from expunge.core.records import KEYWORD_METRICS, Frozen, Score, SequenceRecord
from expunge.reports.formats import number, score_text
from expunge.reports.leaks_and_utility import UTILITY_SPLITS, fallback_metrics
from expunge.reports.metric_texts import metric_meaning, metric_title, utility_metrics
from expunge.reports.page import render
from expunge.reports.verdict import KEPT_SHARE, PLAIN_LEAK, WORST_LEAK

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

PAGE = "sequence.html"
TEMPLATE = "sequence.html.j2"
_NOW = "*"


class Line(Frozen):
    """One request or one split, over the steps."""

    name: str
    scores: list[Score]
    asked_at: int | None = None
    """The step that forgets it; None for what should stay."""

    def state(self, step: int) -> str:
        """What a reader expects of this cell: still to come, just asked for, asked for earlier, or to be kept."""
        if self.asked_at is None:
            return "kept"
        return "later" if step < self.asked_at else "now" if step == self.asked_at else "earlier"


class SequenceTable(Frozen):
    """One metric: a line for each request, or for each split that should stay."""

    metric: str
    explanation: str
    lines: list[Line]
    of: str = "request"
    """What each line is: a request, a split or an aggregate."""


def matrices(record: SequenceRecord) -> list[SequenceTable]:
    """The leak metrics over the requests, then the utility over the splits that should stay."""
    requests = [
        _matrix(metric, [_request(record, metric, index) for index in range(len(record.requests))])
        for metric in _present(record, (*KEYWORD_METRICS, *fallback_metrics()))
    ]
    return [*requests, *([whole] if (whole := _whole(record)) else []), *([kept] if (kept := _kept(record)) else [])]


def verdict(record: SequenceRecord) -> str:
    """One sentence: what is left of the requests so far, the worst of them, and what the rest lost."""
    found = matrices(record)
    last = len(record.steps) - 1
    if not found or not last:
        return f"No step of {len(record.requests)} is done yet."
    done = [line for line in found[0].lines if line.asked_at is not None and line.asked_at <= last]
    worst = max(done, key=lambda line: line.scores[last].value or 0)
    sentence = (
        f"After {last} of {len(record.requests)} requests, {metric_title(found[0].metric)} is at most "
        f"{score_text(worst.scores[last])} on what was asked to be forgotten (worst: request {worst.asked_at})"
    )
    kept = [line for line in found[-1].lines if line.asked_at is None]
    changes = [f"{line.name} {number(line.scores[0].value or 0)} to {score_text(line.scores[last])}" for line in kept]
    return f"{sentence}; of the rest: {', '.join(changes)}." if changes else f"{sentence}."


class Outcome(Frozen):
    """The sequence so far, as a label and one short sentence."""

    label: str
    tone: str
    summary: str


def outcome(record: SequenceRecord) -> Outcome:
    """Whether what was asked to be forgotten is gone after the last step, by the same limits as a run's verdict."""
    found, last = matrices(record), len(record.steps) - 1
    done = [line for line in found[0].lines if line.asked_at is not None and line.asked_at <= last] if found else []
    known = [line for line in done if line.scores[last].value is not None and line.scores[0].value is not None]
    if not last or not known:
        return Outcome(label="No measure", tone="", summary="No request was carried out and measured yet.")
    gone = [line for line in known if _gone(line, last)]
    count = f"{len(gone)} of the {len(done)} requests carried out so far"
    kept = [line for line in found[-1].lines if line.asked_at is None]
    harmed = [line.name for line in kept if (line.scores[last].value or 0) < KEPT_SHARE * (line.scores[0].value or 0)]
    cost = f", at a cost to {', '.join(harmed)}" if harmed else ""
    label, tone = ("Forgotten", "forgotten") if len(gone) == len(done) else ("Partly forgotten", "partly")
    if not gone:
        label, tone = "Not forgotten", "not-forgotten"
    if harmed and tone == "forgotten":
        tone = "harmed"
    verb = "is" if len(gone) == 1 else "are"
    return Outcome(label=label, tone=tone, summary=f"{count} {verb} forgotten, as far as it was tested{cost}.")


def _gone(line: Line, step: int) -> bool:
    score = line.scores[step]
    most = max(score.value or 0, score.high or 0)
    return (score.value or 0) <= PLAIN_LEAK and most <= WORST_LEAK


def print_sequence(record: SequenceRecord, terminal: Terminal) -> None:
    """Print the sentence and the first matrix of each kind."""
    found = outcome(record)
    terminal.prose(f"\n{found.label}: {found.summary}", style="bold")
    terminal.prose(verdict(record))
    steps = [f"step {step.step}" if step.step else "before" for step in record.steps]
    for matrix in matrices(record):
        rows = [
            [
                line.name,
                *(
                    ("absent" if score.value is None else number(score.value))
                    + (_NOW if line.state(step) == "now" else "")
                    for step, score in enumerate(line.scores)
                ),
            ]
            for line in matrix.lines
        ]
        terminal.table([matrix.of, *steps], rows, title=metric_title(matrix.metric))
    terminal.print(f"{_NOW} the step that was to forget it", style="dim")


def write_sequence(record: SequenceRecord, out: Path) -> Path:
    """Write the page of a sequence; replaced in one move."""
    page = render(
        TEMPLATE,
        [],
        record=record,
        verdict=verdict(record),
        outcome=outcome(record),
        matrices=matrices(record),
        steps=[f"step {step.step}" if step.step else "before" for step in record.steps],
    )
    path = out / PAGE
    write_atomic(path, page)
    return path


def _request(record: SequenceRecord, metric: str, index: int) -> Line:
    scores = [step.requests[index].get(metric, Score(value=None)) for step in record.steps]
    return Line(name=f"{index + 1}: {record.requests[index]}", scores=scores, asked_at=index + 1)


def _present(record: SequenceRecord, metrics: tuple[str, ...]) -> list[str]:
    return [
        metric
        for metric in metrics
        if any(metric in scores and scores[metric].value is not None for scores in record.steps[0].requests)
    ]


def _whole(record: SequenceRecord) -> SequenceTable | None:
    """Model utility, by every aggregate that has a value."""
    names = [name for name, found in record.steps[0].aggregates.items() if found.value is not None]
    lines = [
        Line(
            name=name,
            scores=[
                Score(value=found.value, low=found.low, high=found.high)
                for found in (step.aggregates[name] for step in record.steps)
            ],
        )
        for name in names
    ]
    return _matrix("model utility", lines, "aggregate") if lines else None


def _kept(record: SequenceRecord) -> SequenceTable | None:
    """The splits that should stay, by the first utility metric that they have."""
    for metric in utility_metrics():
        lines = [
            Line(name=split, scores=[step.utility[split][metric] for step in record.steps])
            for split in UTILITY_SPLITS
            if record.steps[0].utility.get(split, {}).get(metric, Score(value=None)).value is not None
        ]
        if lines:
            return _matrix(metric, lines, "split")
    return None


def _matrix(metric: str, lines: list[Line], of: str = "request") -> SequenceTable:
    return SequenceTable(metric=metric, explanation=metric_meaning(metric), lines=lines, of=of)
