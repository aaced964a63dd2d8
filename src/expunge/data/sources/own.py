"""own: a folder of your own files, each named after its split."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.schema import SPLITS
from expunge.data.base import DataSource
from expunge.data.sources._tables import PublishedTable, read_folder


class Own(DataSource):
    """`forget.jsonl`, `retain.jsonl`, ... with the fields of a row; also .json, .csv, .parquet and .txt."""

    class Config(BaseModel):
        """Where the files are."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        folder: str = Field(default=".", description="Folder with one file a split.")

    splits: ClassVar = tuple(SPLITS)

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one file, in order."""
        table = PublishedTable("your own rows", None, split, (split,))
        found = read_folder(Path(self.config.folder), table)
        return [{"id": f"{split}-{index}", **item.row} for index, item in enumerate(found)]
