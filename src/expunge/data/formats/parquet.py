"""Parquet: a binary table with typed columns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar

from expunge.core.errors import UserError
from expunge.data.formats.base import Format, RawRow, RawTable, reading


class Parquet(Format):
    """Whole files; nested columns become lists and objects."""

    endings: ClassVar = (".parquet",)
    rank: ClassVar = 3

    def read(self, path: Path, encoding: str | None) -> RawTable:
        """One row for each row of the table."""
        import pyarrow
        import pyarrow.parquet

        with reading(path), path.open("rb"):
            pass
        try:
            table = pyarrow.parquet.ParquetFile(path).read()
            if twice := [name for name, count in Counter(table.column_names).items() if count > 1]:
                raise UserError(f"{path}: column '{twice[0]}' is there more than once")
            rows = table.to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise UserError(f"{path}: not a Parquet file, or a damaged one: {reason}") from None
        return RawTable([RawRow(f"{path}[{place}]", row) for place, row in enumerate(rows)])
