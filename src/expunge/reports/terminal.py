"""The terminal: text is shown as it is, and every table in one style that fits any width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from expunge.core.printable import printable

PIPED = 200
"""Columns of output that is not a terminal: a row stays on one line, for programs that read lines."""
PROSE = 100
"""Longest line of running text, in columns."""
_LONG = 30
"""A column with longer cells is running text, which is broken between words."""
_READABLE = 24
"""Columns below which running text is not readable: the table is written row by row instead."""
_RULED = "    \n    \n {0}{0} \n    \n    \n    \n    \n    \n"
_NUMBER = re.compile(r"[-+\d\[(<][^a-zA-Z]*|absent|-|nan|-?inf|")

Cell = str | Text
Columns = Sequence[Sequence[Cell]]


class Terminal(Console):
    """A console that interprets nothing in a text: no markup, emoji names, highlighting or control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)
        if not self.is_terminal and options.get("width") is None and "COLUMNS" not in self._environ:
            self.width = PIPED

    def render_str(
        self,
        text: str,
        *,
        style: StyleType = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        **_: Any,
    ) -> Text:
        """The text, with control characters written out."""
        return Text(self._shown(text), style=style, justify=justify, overflow=overflow)

    def _shown(self, text: str) -> str:
        """The same as a string, in characters that the stream can write, so that widths are counted rightly."""
        if not self.encoding.startswith("utf"):
            text = text.replace("→", "->").encode(self.encoding, "backslashreplace").decode(self.encoding)
        return printable(text)

    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the caller."""
        raise BrokenPipeError

    def prose(self, text: str, style: str = "") -> None:
        """Print running text, in lines of a length that can be read."""
        self.print(text, style=style, width=min(PROSE, self.width))

    def paths(self, **named: object) -> None:
        """Print where results lie, each on one line that can be copied."""
        self.print()
        for label, path in named.items():
            self.print(f"{label:<7} {path}", soft_wrap=True)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, title: str = "", grouped: bool = False
    ) -> None:
        """Print a table as wide as the terminal allows; no number and no word is cut.

        Where it is too wide, running text is broken between words and intervals go below their values; then it
        becomes two tables, one below the other; then each row is written as a few lines.

        Args:
            headings: one a column. A column whose cells are all empty is left out.
            rows: text.
            title: a line above.
            grouped: the first cell is shown once for neighbouring rows that share it, with a line between groups.
        """
        shown = [[cell if isinstance(cell, Text) else self._shown(cell) for cell in row] for row in (headings, *rows)]
        columns = [[heading, *cells] for heading, *cells in zip(*shown, strict=True) if any(map(str, cells))]
        if not columns:
            return
        self.print()
        if title:
            self.print(title, style="bold")
        names = 2 if grouped and len(columns) > 2 else 1
        for parts in ([columns], _halves(columns, names)):
            drawn = [self._drawn(part, grouped) for part in parts]
            if all(drawn):
                for place, one in enumerate(filter(None, drawn)):
                    if place:
                        self.print()
                    self.print(one, crop=False, no_wrap=True, overflow="ignore")
                return
        self._blocks(columns, names)

    def _drawn(self, columns: Columns, grouped: bool) -> Table | None:
        """The table, its intervals below their values if it is too wide otherwise; None if it does not fit."""
        for shaped in (columns, _stacked_intervals(columns)):
            for gap in (2, 1):
                if (widths := _widths(shaped, self.width, gap)) is not None:
                    return self._table(shaped, widths, gap, grouped)
        return None

    def _table(self, columns: Columns, widths: Sequence[int], gap: int, grouped: bool) -> Table:
        rule = "─" if self.encoding.startswith("utf") else "-"
        drawn = Table(
            box=Box(_RULED.format(rule), ascii=rule == "-"),
            show_edge=False,
            pad_edge=False,
            padding=(0, gap - 1, 0, 0),
            header_style="bold",
        )
        for place, (cells, width) in enumerate(zip(columns, widths, strict=True)):
            numeric = place > 0 and all(_NUMBER.fullmatch(line) for cell in cells[1:] for line in str(cell).split("\n"))
            justify: JustifyMethod = "right" if numeric else "left"
            drawn.add_column(self._text(cells[0]), justify=justify, width=width, overflow="fold")
        previous = None
        for first, *cells in zip(*(column[1:] for column in columns), strict=True):
            if grouped and previous is not None and str(first) != previous:
                drawn.add_section()
            again = grouped and str(first) == previous
            drawn.add_row("" if again else self._text(first), *map(self._text, cells))
            previous = str(first)
        return drawn

    def _blocks(self, columns: Columns, names: int) -> None:
        """Each row as its first cells, and a line for each further one."""
        label = min(max((len(str(column[0])) for column in columns[names:]), default=0), max(self.width // 3, 8))
        room = self.width - label - 4
        if any(len(str(cell)) > room for column in columns[names:] for cell in column):
            columns = _stacked_intervals(columns)
        for cells in zip(*(column[1:] for column in columns), strict=True):
            self.print(": ".join(str(cell) for cell in cells[:names] if str(cell)), style="bold")
            lines = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
            lines.add_column(width=1)
            lines.add_column(width=label, overflow="fold")
            lines.add_column(overflow="fold")
            for column, cell in zip(columns[names:], cells[names:], strict=True):
                if str(cell):
                    heading = str(column[0]).replace("\n", " ")
                    lines.add_row("", heading, self._text(cell))
            self.print(lines)

    def _text(self, cell: Cell) -> Text:
        return cell if isinstance(cell, Text) else self.render_str(cell)


def _stacked_intervals(columns: Columns) -> Columns:
    return [[cell.replace(" [", "\n[") if isinstance(cell, str) else cell for cell in cells] for cells in columns]


def _halves(columns: Columns, names: int) -> list[Columns]:
    """The columns as two tables, each of which starts with those that name its rows."""
    head, rest = columns[:names], columns[names:]
    middle = (len(rest) + 1) // 2
    return [[*head, *rest[:middle]], [*head, *rest[middle:]]]


def _widths(columns: Columns, width: int, gap: int) -> list[int] | None:
    """The width of each column, or None without room: the narrowest columns get their natural width first."""
    wanted = [max(_length(line) for cell in cells for line in str(cell).split("\n")) for cells in columns]
    least = [
        max(_unbroken(cells), min(like, _READABLE) if place and like > _LONG else 0)
        for place, (cells, like) in enumerate(zip(columns, wanted, strict=True))
    ]
    room = width - sum(least) - gap * (len(columns) - 1)
    if room < 0:
        return None
    given = list(least)
    for place in sorted(range(len(columns)), key=lambda place: wanted[place] - least[place]):
        more = min(wanted[place] - least[place], room)
        given[place] += more
        room -= more
    return given


def _unbroken(cells: Sequence[Cell]) -> int:
    """Width of the longest part that must stay on one line: a line with an interval, or a word."""
    lines = [line for cell in cells for line in str(cell).split("\n")]
    parts = [part for line in lines for part in ([line] if "[" in line and len(line) <= _LONG else line.split())]
    return max(map(_length, parts), default=0)


def _length(text: str) -> int:
    return cell_len(text)
