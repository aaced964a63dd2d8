"""JSON: a list of rows, JSON lines, an object of columns, or SQuAD's nested layout."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from expunge.core.errors import UserError
from expunge.data.formats._json import NotOneValueError, as_row, is_turns, lines, parse
from expunge.data.formats._text import read_text
from expunge.data.formats.base import Format, RawRow, RawTable
from expunge.data.names import canonical, is_known


class Json(Format):
    """What several tools write under this ending."""

    endings: ClassVar = (".json",)
    rank: ClassVar = 1

    def read(self, path: Path, encoding: str | None) -> RawTable:
        """Every row of the file."""
        text, found = read_text(path, encoding)
        if not text.strip():
            return RawTable([], found)
        try:
            value = parse(text, str(path), numbered=True)
        except NotOneValueError:
            return RawTable(lines(text, str(path)), found)
        return RawTable(_rows(value, str(path)), found)


def _rows(value: object, where: str) -> list[RawRow]:
    if isinstance(value, list) and not is_turns(value):
        return [RawRow(f"{where}[{place}]", as_row(one, f"{where}[{place}]")) for place, one in enumerate(value)]
    if isinstance(value, list):
        return [RawRow(where, {"messages": value})]
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a list of rows, found {type(value).__name__}")
    if columns := _columns(value):
        names, rows = list(value), zip(*columns, strict=True)
        return [RawRow(f"{where}[{place}]", dict(zip(names, row, strict=True))) for place, row in enumerate(rows)]
    tables = [name for name, one in value.items() if _is_table(one)]
    if len(tables) == 1:
        name = tables[0]
        rows_of = _squad if any("paragraphs" in one for one in value[name]) else _rows
        return rows_of(value[name], f"{where}:{name}")
    if tables:
        raise UserError(f"{where}: several lists of rows ({', '.join(tables[:4])}); keep the one that is meant")
    if any(is_known(canonical(name)) for name in value):
        return [RawRow(where, value)]
    raise UserError(f"{where}: expected a list of rows, found an object with {', '.join(list(value)[:4]) or 'nothing'}")


def _is_table(value: object) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value) and not is_turns(value)
    )


def _columns(table: dict[str, object]) -> list[list[object]]:
    """The columns of `{"question": [...], "answer": [...]}`, or of pandas' `{"question": {"0": ...}, ...}`."""
    values = list(table.values())
    if values and all(isinstance(one, list) for one in values):
        columns = [one for one in values if isinstance(one, list)]
        flat = len(columns) > 1 and not any(isinstance(cell, dict) for column in columns for cell in column)
        return columns if flat and len({len(one) for one in columns}) == 1 else []
    if values and all(isinstance(one, dict) for one in values):
        indexed = [one for one in values if isinstance(one, dict)]
        alike = all(list(one) == list(indexed[0]) for one in indexed)
        return [list(one.values()) for one in indexed] if alike and all(key.isdigit() for key in indexed[0]) else []
    return []


def _squad(articles: object, where: str) -> list[RawRow]:
    """One row for each question: `data[].paragraphs[].qas[]`."""
    rows = []
    for a, article in _objects(articles, where):
        for p, paragraph in _objects(article.get("paragraphs"), f"{where}[{a}].paragraphs"):
            place = f"{where}[{a}].paragraphs[{p}].qas"
            for q, asked in _objects(paragraph.get("qas"), place):
                row = {**asked, "context": paragraph.get("context"), "title": article.get("title")}
                rows.append(RawRow(f"{place}[{q}]", row))
    return rows


def _objects(value: object, where: str) -> list[tuple[int, dict[str, object]]]:
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list, found {type(value).__name__}")
    for place, one in enumerate(value):
        if not isinstance(one, dict):
            raise UserError(f"{where}[{place}]: expected an object, found {type(one).__name__}")
    return list(enumerate(value))
