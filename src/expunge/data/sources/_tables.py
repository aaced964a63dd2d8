"""Tables of published data sets: from the hub, or from a folder that holds the same files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from expunge.core.errors import UserError, near
from expunge.data import files
from expunge.data.base import DataSource
from expunge.data.formats.base import RawRow


@dataclass(frozen=True)
class PublishedTable:
    """Where one table lies."""

    repository: str
    """Hub id."""
    subset: str | None
    """Configuration name on the hub."""
    split: str
    """Split name on the hub."""
    files: tuple[str, ...]
    """Patterns of its files below a folder, without ending; the first that any file fits is read."""


class Published(DataSource):
    """A source whose rows are those of a published data set."""

    class Config(BaseModel):
        """Where the files are."""

        model_config = ConfigDict(frozen=True, extra="forbid")

        folder: str | None = Field(
            default=None, description="Folder with the files of the published repository; left out: the hub."
        )

    def read(self, table: PublishedTable) -> list[RawRow]:
        """Rows of a table as published.

        Raises:
            UserError: no such file in the folder, a malformed file, or the hub is out of reach.
        """
        if self.config.folder is not None:
            return read_folder(Path(self.config.folder), table)
        try:
            return read_hub(table.repository, table.subset, table.split)
        except UserError as error:
            raise UserError(
                f"{error}; without a network, give a copy of its files: "
                'options = { folder = "..." }, or --folder beside --suite'
            ) from None


def read_hub(repository: str, subset: str | None, split: str) -> list[RawRow]:
    """Rows of a data set on the hub.

    Raises:
        UserError: no such data set, or the hub is out of reach.
    """
    import datasets

    name = ":".join(filter(None, (repository, subset, split)))
    try:
        rows = datasets.load_dataset(repository, subset, split=split)
    except Exception as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"cannot load '{name}' from the hub ({type(error).__name__}: {reason})") from None
    return [RawRow(f"{name}[{index}]", dict(row)) for index, row in enumerate(rows)]


def read_folder(folder: Path, table: PublishedTable) -> list[RawRow]:
    """Rows of a table from the files of a folder; the parts of a table follow one another by name.

    Raises:
        UserError: no such folder, no file of the table in it, or a malformed file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    for pattern in table.files:
        for ending in files.endings():
            if parts := sorted(folder.glob(f"{pattern}{ending}")):
                return [row for part in parts for row in files.read(part).rows]
    name = ":".join(filter(None, (table.repository, table.subset)))
    there = sorted(path.name for path in folder.iterdir())
    raise UserError(
        f"{folder}: no file '{table.files[0]}' ({', '.join(files.endings())}), the split '{table.split}' of {name}; "
        f"the folder holds {', '.join(there[:8]) or 'nothing'}{', ...' if len(there) > 8 else ''}"
    )


def text_of(item: RawRow, field: str) -> str:
    """A field that must hold text.

    Raises:
        UserError: it is missing, or something else.
    """
    value = _present(item, field)
    if not isinstance(value, str):
        raise UserError(f"{item.where}: field '{field}' must be text, found {type(value).__name__}")
    return value


def texts_of(item: RawRow, field: str) -> list[str]:
    """A field that must hold a list of texts, not an empty one.

    Raises:
        UserError: it is missing, or something else.
    """
    value = _present(item, field)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise UserError(f"{item.where}: field '{field}' must be a list of texts")
    return value


def _present(item: RawRow, field: str) -> object:
    if (value := item.row.get(field)) is None:
        raise UserError(f"{item.where}: no field '{field}'{near(field, item.row)}")
    return value


def renamed(item: RawRow, fields: dict[str, str], needed: tuple[str, ...]) -> dict[str, object]:
    """Some fields of a row under our names; nulls are left out.

    Args:
        item: the row as published.
        fields: our name -> theirs.
        needed: which of ours must be there.

    Raises:
        UserError: a needed one is missing.
    """
    for ours in needed:
        text_of(item, fields[ours])
    return {ours: value for ours, theirs in fields.items() if (value := item.row.get(theirs)) is not None}


def documents(rows: list[RawRow], prefix: str) -> list[dict[str, object]]:
    """Rows with a `text` as documents; those without any letter are left out, since they hold nothing."""
    return [
        {"id": f"{prefix}-{index}", "text": text, **renamed(item, {"subject": "subject"}, ())}
        for index, item in enumerate(rows)
        if (text := text_of(item, "text")).strip()
    ]
