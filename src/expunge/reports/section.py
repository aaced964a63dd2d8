"""A section of a report as a page and on the terminal, whatever it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.records import Score
from expunge.core.report_section import Cell, Diagnosis, ReportSection, Table
from expunge.reports.formats import cell_text, score_text
from expunge.reports.page import render

if TYPE_CHECKING:
    from expunge.reports.terminal import Terminal

_MOST_ROWS = 20
"""A longer table is not printed on the terminal."""
_LONGEST = 30
"""Characters; a longer text leaves no room for the columns beside it."""


def page(diagnosis: Diagnosis) -> str:
    """A self-contained page."""
    return render(
        "diagnosis.html.j2",
        diagnosis.finding.charts,
        diagnosis=diagnosis,
        section=diagnosis.finding,
        created=diagnosis.provenance.created.replace("T", " ")[:16],
    )


def print_section(section: ReportSection, terminal: Terminal, most_rows: int = _MOST_ROWS) -> None:
    """Print the sentence, the tables and the notes.

    Args:
        section: to print.
        terminal: to print on.
        most_rows: a longer table is only named.
    """
    terminal.prose(f"\n{section.sentence}", style="bold")
    for table in section.tables:
        if len(table.rows) > most_rows:
            terminal.prose(f"\n{table.caption}: {len(table.rows)} rows, in the report")
        else:
            print_table(table, terminal)
    for note in section.notes:
        terminal.prose(note, style="dim")


def print_table(table: Table, terminal: Terminal) -> None:
    """Print a table, and below it, each once, the texts that no column has room for: long cells and reasons."""
    long = {
        place
        for place in range(1, len(table.columns))
        if any(isinstance(row[place], str) and len(str(row[place])) > _LONGEST for row in table.rows)
    }
    below: dict[str, list[str]] = {}
    for row in table.rows:
        texts = [str(cell) for place, cell in enumerate(row) if place in long and cell]
        reasons = [f"absent, {cell.reason}" for cell in row if isinstance(cell, Score) and cell.reason]
        for text in (*texts, *reasons):
            below.setdefault(text, []).append(cell_text(row[0]))
    kept = [place for place in range(len(table.columns)) if place not in long]
    rows = [[_short(row[place]) for place in kept] for row in table.rows]
    terminal.table([table.columns[place] for place in kept], rows, title=table.caption)
    for text, names in below.items():
        terminal.prose(f"{', '.join(dict.fromkeys(names))}: {text}.", style="dim")


def _short(cell: Cell) -> str:
    return score_text(cell) if isinstance(cell, Score) else cell_text(cell)
