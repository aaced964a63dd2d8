"""The contract of a data source, and how a run names its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator, model_validator

from expunge.core import plugins
from expunge.core.records import Frozen
from expunge.core.toml import read_value
from expunge.core.validation import check
from expunge.data.encode import Documents
from expunge.data.files import exists


class DataSource(ABC):
    """A named data set. Each file of `data/sources` defines one subclass."""

    class Config(BaseModel):
        """Options of the source, each with its text and default."""

    splits: ClassVar[tuple[str, ...]] = ()
    """Names that may follow the colon in `name:split`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, with the field names of `Example`."""


class DataSpec(Frozen):
    """One split of a run: `"people:forget"`, `"facts.jsonl"`, `"org/set:train"`, a table of these keys, or a list."""

    name: str = Field(
        description="Name of a shipped set, path of a file (.jsonl .json .csv .tsv .parquet .txt .md) or folder, hub id"
    )
    split: str = Field("", description="Split of a shipped set or hub data set")
    subset: str | None = Field(None, description="Configuration name of a hub data set, e.g. forget01")
    fields: dict[str, str] = Field(default_factory=dict, description="Our field name = the file's own name for it")
    ignore: tuple[str, ...] | None = Field(None, description="Columns that are left out, e.g. one named like a field")
    encoding: str | None = Field(None, description="Of a text file that is not Unicode, e.g. cp1252")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of a shipped set, e.g. authors = 8")
    skip: int = Field(0, ge=0, description="Leave out this many rows at the start")
    limit: int | None = Field(None, ge=1, description="Use only this many rows")
    also: tuple[DataSpec, ...] = Field((), description="More data for the same split; a list of data sets is the same")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return as_table(value)

    @field_validator("also", "ignore", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def __str__(self) -> str:
        own = f"{self.name}:{self.split}" if self.split else self.name
        if self.skip or self.limit:
            own += f"[{self.skip}:{self.skip + self.limit if self.limit else ''}]"
        return " + ".join([own, *map(str, self.also)])


def as_table(value: Any) -> Any:
    """A name, `name:split`, inline table or list as the table it abbreviates; anything else unchanged."""
    if isinstance(value, list) and value:
        first = as_table(value[0])
        return {**first, "also": [*first.get("also", ()), *value[1:]]} if isinstance(first, dict) else value
    table = {"name": value} if isinstance(value, str) else value
    name = table.get("name") if isinstance(table, dict) else None
    if isinstance(name, str) and name.lstrip().startswith("{") and isinstance(inline := read_value(name), dict):
        table = {**inline, **{key: one for key, one in table.items() if key != "name"}}
        name = table.get("name")
    if isinstance(name, str) and ":" in name and "split" not in table and not exists(Path(name)):
        own, _, split = name.rpartition(":")
        return table if "/" in split else {**table, "name": own, "split": split}
    return table


def beside(name: str, folder: Path) -> str:
    """A data file or folder as it is named from here, if it is not found from here but from `folder`."""
    if exists(Path(name)) or name in plugins.names("data/sources"):
        return name
    own, colon, split = name.rpartition(":")
    for path, tail in ((name, ""), (own, f"{colon}{split}")):
        if path and exists(folder / path) and not exists(Path(path)):
            return f"{folder / path}{tail}"
    return name


def spec_of(text: str, where: str) -> DataSpec:
    """The data set that a text names: `people:forget`, `facts.jsonl`, or `{name = "facts.jsonl", limit = 5}`.

    Raises:
        UserError: an inline table with an unknown key or a value of another type.
    """
    return check(DataSpec, as_table(text), where)


TokenLimit = Annotated[int, Field(ge=8)]


class DataConfig(Frozen):
    """What to forget, what to keep, and what to measure besides."""

    forget: DataSpec = Field(description="Rows to forget")
    retain: DataSpec = Field(description="Rows to keep, trained on beside the forget rows")
    neighbour: DataSpec | None = Field(None, description="Rows near the forgotten ones, only measured")
    general: DataSpec | None = Field(None, description="Any other knowledge, only measured")
    holdout: DataSpec | None = Field(
        None, description="Rows like those to forget that no model was trained on, only measured"
    )
    chunk_tokens: int = Field(256, ge=8, description="Documents are split into even pieces of about this many tokens")
    max_tokens: TokenLimit | dict[str, TokenLimit] | None = Field(
        None,
        description="Cut documents off after this many tokens instead of splitting them; a table gives the number for "
        "each topic, and for `other` topics",
    )

    @property
    def documents(self) -> Documents:
        """How documents become rows."""
        return Documents(self.chunk_tokens, self.max_tokens)
