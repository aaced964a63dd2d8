"""Text tables: commas, semicolons, tabs or bars between the columns."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from expunge.core.errors import UserError
from expunge.data.formats._text import read_text
from expunge.data.formats.base import Format, RawRow, RawTable
from expunge.data.names import canonical, is_known

_SEPARATORS = (",", ";", "\t", "|")
_DECLARED = re.compile(r'"?sep=(.)"?[,;]*(?:\r\n|\n|\r)', re.IGNORECASE)
"""Excel's first line that names the separator."""
_COMPARED = 20
"""Records whose width tells separators apart."""


class Csv(Format):
    """The separator is the one that makes the first line name known columns and the next lines as wide."""

    endings: ClassVar = (".csv", ".tsv")
    rank: ClassVar = 2

    def read(self, path: Path, encoding: str | None) -> RawTable:
        """One row for each record below the header; empty cells are left out."""
        text, found = read_text(path, encoding)
        first_line, declared = 1, _DECLARED.match(text)
        if declared:
            text, first_line = text[declared.end() :], 2
        with _any_cell_size():
            separator = declared.group(1) if declared else _separator(text, path)
            rows, blank = _rows(text, separator, path, first_line)
        return RawTable(rows, found, separator, blank)


def _rows(text: str, separator: str, path: Path, first_line: int) -> tuple[list[RawRow], int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[RawRow] = []
    blank, header = 0, None
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num + first_line - 1}"
            if header is None:
                header = _header(cells, where)
            elif not any(cell.strip() for cell in cells):
                blank += bool(cells)
            else:
                rows.append(RawRow(where, _row(header, cells, where)))
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num + first_line - 1}: not CSV: {error}") from None
    return rows, blank


def _header(cells: list[str], where: str) -> list[str]:
    """Column names; a column without a name (pandas' index, a trailing separator) is named by its place."""
    names = [cell.strip() or f"(column {place})" for place, cell in enumerate(cells, start=1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{where}: column '{twice[0]:.40}' is there more than once")
    return names


def _row(header: list[str], cells: list[str], where: str) -> dict[str, object]:
    if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
        raise UserError(f"{where}: expected {len(header)} columns, found {len(cells)}")
    return dict(zip(header, cells, strict=False))


def _separator(text: str, path: Path) -> str:
    """The separator under which most columns have known names, then most records are as wide as the first line."""
    scores = {}
    for separator in _SEPARATORS:
        widths = []
        names: list[str] = []
        try:
            for place, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator)):
                if place == 0:
                    names = [cell.strip() for cell in cells]
                elif cells:
                    widths.append(len(cells))
                if place == _COMPARED:
                    break
        except csv.Error:
            continue
        known = sum(is_known(canonical(name)) for name in names)
        alike = sum(width == len(names) for width in widths) / max(1, len(widths))
        scores[separator] = (known, len(names) > 1 and alike, path.suffix.lower() == ".tsv" and separator == "\t")
    return max(scores, key=lambda one: scores[one]) if scores else ","


@contextmanager
def _any_cell_size() -> Iterator[None]:
    """A document may be longer than the csv module's 128 kB a cell."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
