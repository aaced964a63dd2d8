"""JSON lines: one object a line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from expunge.core.errors import UserError
from expunge.data.formats._json import lines
from expunge.data.formats._text import read_text
from expunge.data.formats.base import Format, RawTable


class JsonLines(Format):
    """A blank line is no row; a line that is a bare string is a text."""

    endings: ClassVar = (".jsonl", ".ndjson", ".jsonlines")
    rank: ClassVar = 0

    def read(self, path: Path, encoding: str | None) -> RawTable:
        """One row for each line."""
        text, found = read_text(path, encoding)
        if text.lstrip().startswith("[") and not text.lstrip().partition("\n")[0].rstrip().endswith("]"):
            raise UserError(f"{path}:1: a JSON list over several lines, not JSON lines; name the file .json")
        return RawTable(lines(text, str(path)), found)
