"""The contract of a file format: the bytes of a file to raw rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from expunge.core.errors import UserError


class RawRow(NamedTuple):
    """One raw row and where it is: file and line, or file and index."""

    where: str
    row: dict[str, object]


@dataclass(frozen=True)
class RawTable:
    """The rows of one file, and how it was read."""

    rows: list[RawRow]
    encoding: str | None = None
    """Of a text file."""
    separator: str | None = None
    """Between the columns of a text table."""
    left_out: int = 0
    """Rows that hold nothing at all."""
    warnings: tuple[str, ...] = ()


class Format(ABC):
    """One kind of file. One file of `data/formats` defines one subclass."""

    endings: ClassVar[tuple[str, ...]] = ()
    """File name endings, in lower case, with the dot."""
    rank: ClassVar[int]
    """Where a folder holds one table in several formats, the one with the lowest rank is read."""

    @abstractmethod
    def read(self, path: Path, encoding: str | None) -> RawTable:
        """All rows of a file.

        Args:
            path: an existing regular file.
            encoding: of its text. Default: UTF-8, or UTF-16 and UTF-32 if the bytes show it.

        Raises:
            UserError: the file cannot be read, or is not of this format.
        """


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
