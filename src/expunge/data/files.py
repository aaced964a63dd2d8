"""Rows from a path: a file by its ending, a folder of texts, or a folder that `datasets` saved."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.data.formats.base import Format, RawRow, RawTable, reading

_FOLDER = "data/formats"
_TEXT = "txt"
"""The format whose files, in a folder, are documents."""
_SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves: of a dictionary of splits, of a single data set."""


def exists(path: Path) -> bool:
    """Whether anything is there; False too for a name that no file can have.

    Raises:
        UserError: a folder on the way may not be entered.
    """
    try:
        return path.exists()
    except PermissionError:
        raise UserError(f"{path}: no permission to read this folder") from None
    except (OSError, ValueError):
        return False


def endings() -> tuple[str, ...]:
    """Of the files that can be read."""
    return tuple(ending for one in _formats().values() for ending in one.endings)


def read(path: Path, *, encoding: str | None = None, split: str = "") -> RawTable:
    """Rows of a file or folder.

    Args:
        path: where it is.
        encoding: of text files. Default: Unicode, detected from the bytes.
        split: of a folder that holds several.

    Raises:
        UserError: missing, unreadable or empty; an unknown ending; something that is not of its format.
    """
    if not exists(path):
        raise UserError(f"{path}: no such file" + (" (a broken link)" if os.path.lexists(path) else ""))
    if path.is_dir():
        table = _folder(path, encoding, split)
    elif split:
        raise UserError(f"{path}: is a file, which has no split '{split}'")
    elif not path.is_file():
        raise UserError(f"{path}: is a pipe or device, which can be read only once; save it as a file")
    else:
        table = _format(path).read(path, encoding)
    if not table.rows:
        raise UserError(f"{path}: holds no rows")
    return table


@cache
def _formats() -> dict[str, Format]:
    found = {name: plugins.find(_FOLDER, name, Format)() for name in plugins.names(_FOLDER)}  # type: ignore[type-abstract]
    return dict(sorted(found.items(), key=lambda item: item[1].rank))


def _format(path: Path) -> Format:
    ending = path.suffix.lower()
    for one in _formats().values():
        if ending in one.endings:
            return one
    raise UserError(f"{path}: unknown kind of file '{ending}'; known: {', '.join(endings())}")


def _folder(folder: Path, encoding: str | None, split: str) -> RawTable:
    with reading(folder):
        inside = {path.name for path in folder.iterdir()}
    if inside & set(_SAVED):
        return _saved(folder, split)
    if split:
        raise UserError(f"{folder}: a folder of files has no split '{split}'")
    return _documents(folder, encoding)


def _saved(folder: Path, split: str) -> RawTable:
    """Rows of a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
        if isinstance(found, datasets.DatasetDict):
            found = found[split_of(list(found), split, str(folder))]
        elif split:
            raise UserError(f"{folder}: a single data set, which has no split '{split}'")
        rows = [dict(row) for row in found.with_format(None)]
    except UserError:
        raise
    except Exception as error:  # any of pyarrow's, json's and the file system's errors
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"{folder}: a damaged folder of `save_to_disk` ({type(error).__name__}: {reason})") from None
    where = f"{folder}:{split}" if split else str(folder)
    return RawTable([RawRow(f"{where}[{place}]", row) for place, row in enumerate(rows)])


def split_of(splits: list[str], split: str, where: str) -> str:
    """The split that is meant: the named one, or the only one.

    Raises:
        UserError: there is none of that name, or several and none is named.
    """
    if split and split not in splits:
        raise UserError(f"{where}: no split '{split}'{near(split, splits)}")
    if not split and len(splits) != 1:
        raise UserError(f"{where}: several splits ({', '.join(splits)}); name one, e.g. {where}:{splits[0]}")
    return split or splits[0]


def _documents(folder: Path, encoding: str | None) -> RawTable:
    """One document for each text file at any depth, in the order of their paths; hidden files are no data."""
    one = _formats()[_TEXT]
    texts: list[Path] = []
    others: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    with reading(folder):
        for parent, folders, names in os.walk(folder, onerror=refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            paths = [Path(parent) / name for name in sorted(names) if not name.startswith(".")]
            texts += [path for path in paths if path.suffix.lower() in one.endings]
            others += [str(path.relative_to(folder)) for path in paths if path.suffix.lower() not in one.endings]
    if not texts:
        example = f", e.g. {folder / others[0]}" if others else ""
        raise UserError(f"{folder}: is a folder without a text file ({', '.join(one.endings)}); name a file{example}")
    rows: list[RawRow] = []
    encodings: set[str | None] = set()
    for path in sorted(texts):
        table = one.read(path, encoding)
        encodings.add(table.encoding)
        rows += [RawRow(item.where, {"id": path.relative_to(folder).as_posix(), **item.row}) for item in table.rows]
    warnings = []
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        warnings.append(f"{folder}: {len(others)} files are not read, since they are no text files ({shown})")
    return RawTable(rows, ", ".join(sorted(filter(None, encodings))), None, len(texts) - len(rows), tuple(warnings))
