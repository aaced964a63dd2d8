"""Before and after, split by split, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from expunge.core.records import Change, Frozen, Record, Score
from expunge.reports.aggregates import print_aggregates
from expunge.reports.answer_kinds import COLUMNS, kind_rows
from expunge.reports.formats import ABSENT, SPLITS, ordered, reason, score_text
from expunge.reports.leaks_and_utility import change_shown
from expunge.reports.metric_texts import headline_metrics, metric_title

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

Move = Literal["better", "worse", "unclear", "none"]

NOT_MEASURED = Score(value=None, reason="not measured at this stage")
WORDS: dict[Move, str] = {"better": "better", "worse": "worse", "unclear": "no clear change", "none": ""}
COLOURS: dict[Move, str] = {"better": "green", "worse": "red", "unclear": "", "none": ""}


class Row(Frozen):
    """One metric on one split, at both stages."""

    split: str
    metric: str
    before: Score
    after: Score
    change: Change | None = None

    @property
    def move(self) -> Move:
        """Which way it moved: unclear unless the paired test shows it, none without a wanted direction or a value."""
        before, after, better = self.before.value, self.after.value, self.after.better
        if before is None or after is None or better == "neither":
            return "none"
        if before == after or not change_shown(self.before, self.after, self.change):
            return "unclear"
        return "better" if (after > before) == (better == "higher") else "worse"

    @property
    def absent(self) -> bool:
        """Whether neither stage has a value."""
        return self.before.value is None and self.after.value is None

    @property
    def words(self) -> str:
        """The move, in words."""
        return WORDS[self.move]

    @property
    def n(self) -> str:
        """Items behind the values; both counts where the stages differ."""
        counts = [score.counted for score in (self.before, self.after) if score.value is not None]
        return " / ".join(dict.fromkeys(counts))

    @property
    def reference(self) -> str:
        """The reference besides the data that the values depend on, e.g. the encoder of a similarity."""
        return self.after.reference or self.before.reference or ""

    @property
    def reasons(self) -> list[str]:
        """Why a stage is absent, each reason once."""
        return list(dict.fromkeys(reason(score) for score in (self.before, self.after) if score.value is None))


def comparison(record: Record) -> list[Row]:
    """Every metric of every split: the usual splits and headline metrics first."""
    rows = []
    for split in ordered([*record.before, *record.after], SPLITS):
        before, after = record.before.get(split, {}), record.after.get(split, {})
        changes = record.changes.get(split, {})
        rows += [
            Row(
                split=split,
                metric=metric,
                before=before.get(metric, NOT_MEASURED),
                after=after.get(metric, NOT_MEASURED),
                change=changes.get(metric),
            )
            for metric in ordered([*before, *after], headline_metrics())
        ]
    return rows


def headline(rows: list[Row]) -> list[Row]:
    """The rows of headline metrics; all rows of a split that has none of these."""
    main = [row for row in rows if row.metric in headline_metrics()]
    covered = {row.split for row in main}
    return [row for row in rows if row in main or row.split not in covered]


def print_table(record: Record, terminal: Terminal) -> None:
    """Print the headline metrics of each split, the absent ones with their reason, and the aggregates."""
    from rich.text import Text

    rows = headline(comparison(record))
    measured = [row for row in rows if not row.absent]
    terminal.table(
        ["split", "metric", "before [95%]", "after [95%]", "n", "change"],
        [
            [
                row.split,
                metric_title(row.metric),
                score_text(row.before),
                score_text(row.after),
                row.n,
                Text("unclear" if row.move == "unclear" else row.words, style=COLOURS[row.move]),
            ]
            for row in measured
        ],
        grouped=True,
    )
    for note in absences(rows):
        terminal.prose(note)
    print_aggregates(record, terminal)
    _print_kinds(record, terminal)


def _print_kinds(record: Record, terminal: Terminal) -> None:
    """Print the kinds of answer on each split, before and after, if answers were labelled."""
    rows = kind_rows(record)
    terminal.table(
        ["greedy answers", *COLUMNS, "n"],
        [[row.split, *(row.cell(place) for place in range(len(COLUMNS))), row.n] for row in rows],
    )


def absences(rows: list[Row]) -> list[str]:
    """One line for each reason: `absent, no paraphrases in the data: paraphrase keyword recall (forget, retain)`."""
    groups: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for why in row.reasons:
            groups.setdefault(why, {}).setdefault(row.metric, []).append(row.split)
    return [
        f"{ABSENT}, {why}: "
        + ", ".join(f"{metric_title(metric)} ({', '.join(splits)})" for metric, splits in metrics.items())
        for why, metrics in groups.items()
    ]
