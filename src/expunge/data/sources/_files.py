"""Rows from files: JSONL, JSON, CSV, Parquet, plain text. Errors name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from expunge.core.errors import UserError


class Located(NamedTuple):
    """One raw row and where it stands."""

    where: str
    row: dict[str, object]


def read(path: Path) -> list[Located]:
    """Rows of a file by its ending.

    Raises:
        UserError: missing or empty file, unknown ending, a line that is not a JSON object.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown kind of file '{path.suffix}'; known: {', '.join(_READERS)}")
    try:
        rows = reader(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except csv.Error as error:
        raise UserError(f"{path}: not CSV: {error}") from None
    if not rows:
        raise UserError(f"{path}: the file holds no rows")
    return rows


def _jsonl(path: Path) -> list[Located]:
    lines = enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1)
    return [Located(f"{path}:{number}", _object(line, f"{path}:{number}")) for number, line in lines if line.strip()]


def _object(line: str, where: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    return _row(value, where)


def _row(value: object, where: str) -> dict[str, object]:
    """An object as it is; a bare string is a text."""
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with field names, found {type(value).__name__}")
    return value


def _json(path: Path) -> list[Located]:
    """A list of rows, or JSON lines under this ending, as several data sets are published."""
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        return []
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _jsonl(path)
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of rows, found {type(value).__name__}")
    return [Located(f"{path}[{index}]", _row(item, f"{path}[{index}]")) for index, item in enumerate(value)]


def _csv(path: Path) -> list[Located]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        rows = []
        for raw in reader:
            where = f"{path}:{reader.line_num}"
            if None in raw or None in raw.values():
                raise UserError(f"{where}: expected {len(reader.fieldnames or ())} columns")
            rows.append(Located(where, {name: _cell(value) for name, value in raw.items() if value != ""}))
    return rows


def _cell(value: str) -> object:
    """A CSV cell that holds a JSON list is that list."""
    if value.startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _parquet(path: Path) -> list[Located]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file: {error}") from None
    return [Located(f"{path}[{index}]", row) for index, row in enumerate(rows)]


def _text(path: Path) -> list[Located]:
    text = path.read_text(encoding="utf-8-sig")
    return [Located(str(path), {"text": text})] if text.strip() else []


_READERS: dict[str, Callable[[Path], list[Located]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
}
"""By file ending; a format of the outside world, not one of our plug-ins."""

ENDINGS = tuple(_READERS)
"""Of the files that can be read."""
