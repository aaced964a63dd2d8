"""A diagnosis as a page and on the terminal; it knows no diagnostic by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.finding import Cell, Diagnosis, Finding, Series, Table
from expunge.core.records import Score
from expunge.reports import squeeze
from expunge.reports.canvas import Picture
from expunge.reports.charts import draw
from expunge.reports.html import environment, plotly_script
from expunge.reports.words import number, score_text

if TYPE_CHECKING:
    from rich.console import Console


_MOST_ROWS = 20
"""A longer table is not printed on the terminal."""


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


def pictures(finding: Finding) -> list[Picture]:
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


def told(table: Table) -> squeeze.Table:
    """A table with its cells in words."""
    return squeeze.Table(
        caption=table.caption, headings=table.columns, rows=[[text(cell) for cell in row] for row in table.rows]
    )


def text(cell: Cell) -> str:
    """A cell in words; an absent score with its reason."""
    if isinstance(cell, Score):
        return score_text(cell) if cell.reason is None else f"{score_text(cell)}: {cell.reason}"
    if isinstance(cell, float):
        return number(cell) if cell == 0 or abs(cell) >= 0.01 else f"{cell:.2g}"
    return "" if cell is None else str(cell)


def print_finding(finding: Finding, console: Console, most_rows: int = _MOST_ROWS) -> None:
    """Print the sentence, the tables and the notes.

    Args:
        finding: what to print.
        console: where.
        most_rows: a longer table is only named.
    """
    from rich import box
    from rich.table import Table as Drawn

    console.print(f"\n{finding.sentence}", markup=False, highlight=False)
    for table in map(told, finding.tables):
        if len(table.rows) > most_rows:
            console.print(f"\n{table.caption}: {len(table.rows)} rows, in the report", markup=False, highlight=False)
            continue
        drawn = Drawn(
            title=table.caption, title_justify="left", pad_edge=False, box=box.SIMPLE_HEAD, header_style="bold"
        )
        for place, heading in enumerate(table.headings):
            drawn.add_column(heading.replace("[", r"\["), justify="right" if place else "left")
        for row in table.rows:
            drawn.add_row(*(cell.replace("[", r"\[") for cell in row))
        console.print(drawn)
    for note in finding.notes:
        console.print(note, markup=False, highlight=False, style="dim")


def _in_words(one: Series) -> str:
    """First and last value, for those who do not see the figure."""
    if not one.y:
        return f"{one.name} without values"
    return f"{one.name} {text(one.y[0])} at {text(one.x[0])} to {text(one.y[-1])} at {text(one.x[-1])}"
