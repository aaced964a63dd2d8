"""The contract of a row layout: other or nested columns that hold the fields of an `Example`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

FOLDER = "data/shapes"

RowValues = Mapping[str, Any]
"""Column -> value; empty values are not in it."""


class ParsedRow(NamedTuple):
    """A row of a published layout as fields of an `Example`."""

    values: dict[str, Any]
    """Our field -> its value, to be checked like any other."""
    used: dict[str, str]
    """Our field -> the columns that it came from, in words."""
    columns: tuple[str, ...]
    """Columns that are accounted for; all others are fields by their own names, or not used."""


class Shape(ABC):
    """One layout of rows. One file of `data/shapes` defines one subclass."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Column names that only this layout gives a meaning."""

    @abstractmethod
    def fits(self, row: RowValues) -> bool:
        """Whether a row has this layout."""

    @abstractmethod
    def read(self, row: RowValues, where: str) -> ParsedRow:
        """A row's fields.

        Raises:
            UserError: it has the layout, but its content is malformed.
        """

    def left_out(self, row: RowValues) -> str | None:
        """Why a row of this layout holds nothing to learn, e.g. a question without an answer; None if it does not."""
        return None
