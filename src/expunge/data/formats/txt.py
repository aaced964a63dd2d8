"""Plain text: the whole file is one document."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from expunge.data.formats._text import read_text
from expunge.data.formats.base import Format, RawRow, RawTable


class Text(Format):
    """Also Markdown, as it is."""

    endings: ClassVar = (".txt", ".md", ".text", ".markdown")
    rank: ClassVar = 4

    def read(self, path: Path, encoding: str | None) -> RawTable:
        """One row, or none of a blank file."""
        text, found = read_text(path, encoding)
        return RawTable([RawRow(str(path), {"text": text})] if text.strip() else [], found)
