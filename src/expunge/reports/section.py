"""A diagnosis as a page and on the terminal; it knows no diagnostic by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.records import Score
from expunge.core.report_section import Cell, Diagnosis, ReportSection, Series, Table
from expunge.reports import squeeze
from expunge.reports.canvas import Picture
from expunge.reports.charts import draw
from expunge.reports.formats import number, score_text
from expunge.reports.page import environment, plotly_script

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

_MOST_ROWS = 20
"""A longer table is not printed on the terminal."""
_LONGEST = 30
"""Characters; a longer text leaves no room for the columns beside it."""


def page(diagnosis: Diagnosis) -> str:
    """A self-contained page."""
    from markupsafe import Markup

    drawn = pictures(diagnosis.finding)
    return (
        environment()
        .get_template("finding.html.j2")
        .render(
            diagnosis=diagnosis,
            finding=diagnosis.finding,
            created=diagnosis.provenance.created.replace("T", " ")[:16],
            pictures=drawn,
            specs={one.name: Markup(one.figure.to_json()) for one in drawn if one.figure is not None},
            tables=[told(table) for table in diagnosis.finding.tables],
            plotly=plotly_script() if drawn else "",
        )
    )


def pictures(finding: ReportSection) -> list[Picture]:
    """One picture for each chart."""
    return [
        Picture(
            name=f"chart-{place}",
            title=chart.title,
            caption=chart.caption,
            alt=f"{chart.title}: {', '.join(map(_in_words, chart.series))}.",
            figure=draw(chart),
        )
        for place, chart in enumerate(finding.charts)
    ]


def told(table: Table) -> squeeze.TextTable:
    """A table with its cells in words."""
    return squeeze.TextTable(
        caption=table.caption, headings=table.columns, rows=[[text(cell) for cell in row] for row in table.rows]
    )


def text(cell: Cell) -> str:
    """A cell in words; an absent score with its reason."""
    if isinstance(cell, Score):
        return score_text(cell) if cell.reason is None else f"{score_text(cell)}: {cell.reason}"
    if isinstance(cell, float):
        return number(cell) if cell == 0 or abs(cell) >= 0.01 else f"{cell:.2g}"
    return "" if cell is None else str(cell)


def print_section(finding: ReportSection, terminal: Terminal, most_rows: int = _MOST_ROWS) -> None:
    """Print the sentence, the tables and the notes.

    What no column has room for stands below its table: why a score is absent, and long texts, each once.

    Args:
        finding: what to print.
        terminal: where.
        most_rows: a longer table is only named.
    """
    terminal.prose(f"\n{finding.sentence}", style="bold")
    for table in finding.tables:
        if len(table.rows) > most_rows:
            terminal.prose(f"\n{table.caption}: {len(table.rows)} rows, in the report")
            continue
        short, below = _shortened(table)
        terminal.table(short.headings, short.rows, title=table.caption)
        for line in below:
            terminal.prose(line, style="dim")
    for note in finding.notes:
        terminal.prose(note, style="dim")


def _shortened(table: Table) -> tuple[squeeze.TextTable, list[str]]:
    """A table without its long texts, and these as lines that name their rows."""
    wordy = {
        place
        for place in range(1, len(table.columns))
        if any(isinstance(row[place], str) and len(str(row[place])) > _LONGEST for row in table.rows)
    }
    below: dict[str, list[str]] = {}
    for row in table.rows:
        told = [cell for place, cell in enumerate(row) if place in wordy and cell]
        reasons = [f"absent, {cell.reason}" for cell in row if isinstance(cell, Score) and cell.reason]
        for words in (*told, *reasons):
            below.setdefault(str(words), []).append(text(row[0]))
    kept = [place for place in range(len(table.columns)) if place not in wordy]
    rows = [[_briefly(row[place]) for place in kept] for row in table.rows]
    shown = squeeze.TextTable(caption=table.caption, headings=[table.columns[place] for place in kept], rows=rows)
    return shown, [f"{', '.join(dict.fromkeys(names))}: {words}." for words, names in below.items()]


def _briefly(cell: Cell) -> str:
    return score_text(cell) if isinstance(cell, Score) else text(cell)


def _in_words(one: Series) -> str:
    """First and last value, for those who do not see the figure."""
    if not one.y:
        return f"{one.name} without values"
    return f"{one.name} {text(one.y[0])} at {text(one.x[0])} to {text(one.y[-1])} at {text(one.x[-1])}"
