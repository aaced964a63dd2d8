"""The rules for files and folders that commands write to: whatever can be refused is refused before any work."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from expunge.core.errors import UserError
from expunge.core.files import (
    LOCK,
    clear_dead,
    clear_leftovers,
    disk_errors,
    is_leftover,
    locked,
    refuse_link,
    write_atomic,
)

_DEEPEST = "work/staging/checkpoint-1000000/model-00001-of-00001.safetensors"
"""About the longest path that a run writes below its directory."""
_NAME_BYTES = 255
"""Longest name of one file or folder on the usual file systems."""


def contents(folder: Path) -> list[Path]:
    """Entries of a folder besides its lock and unfinished files; none if it does not exist."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.name != LOCK and not is_leftover(path)]


def is_ours(folder: Path) -> bool:
    """Whether a process of this program has worked in a folder, which leaves a lock file."""
    return (folder / LOCK).is_file()


def new_name(stem: str) -> str:
    """A folder name with the time, unique among processes."""
    return f"{stem}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}".lstrip("-")


def check_folder(out: Path, option: str = "--out") -> None:
    """Refuse a path at which no folder can be made, or written to.

    Args:
        out: the folder, which need not exist.
        option: the option that named it, for the message.

    Raises:
        UserError: there is a file, device or dangling link there or above, the name is too long or empty, or there is
            no permission to write.
    """
    _check_name(out / _DEEPEST, out, option)
    _check_above(out, out, option)


def check_file(out: Path, option: str = "--out") -> None:
    """Refuse a path at which no file can be written; an ordinary file may be replaced.

    Args:
        out: the file, which need not exist.
        option: the option that named it, for the message.

    Raises:
        UserError: there is a folder, device or dangling link, the name is too long or empty, or as `check_folder` for
            its parent.
    """
    _check_name(out, out, option)
    if out.is_dir():
        raise UserError(f"{option} {out}: is a directory; name a file")
    if os.path.lexists(out) and not out.is_file():
        raise UserError(f"{option} {out}: is not an ordinary file")
    _check_above(out.absolute().parent, out, option)


def check_empty(out: Path, option: str = "--out") -> None:
    """Refuse a folder that holds anything, or cannot be written to.

    Raises:
        UserError: as `check_folder`, or it holds something.
    """
    check_folder(out, option)
    if contents(out):
        raise UserError(f"{option} {out}: is not empty; results are never overwritten")


def check_holds_only(out: Path, marker: str, besides: Collection[str] = ()) -> bool:
    """Whether a folder holds an earlier result of the same command; refuse one that holds anything else.

    Args:
        out: the folder, which need not exist.
        marker: the file by which a result of the command is recognised.
        besides: names that a killed process of the command may leave without the marker.

    Raises:
        UserError: as `check_folder`, or there are other files.
    """
    check_folder(out)
    if (out / marker).is_file():
        return True
    if any(path.name not in besides for path in contents(out)):
        raise UserError(f"{out}: is not empty and holds no {marker}; choose another --out")
    return False


def check_absent(record: Path) -> None:
    """Refuse to replace an earlier result, or to write where nothing can be written.

    Raises:
        UserError: as `check_folder`, or the record exists.
    """
    check_folder(record.parent)
    if record.exists():
        raise UserError(f"{record}: is there already; choose another --out")


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Own a folder while the block runs: make it, keep other processes out, and clear unfinished files.

    Raises:
        UserError: another process owns it, a link in it leads elsewhere, or the file system refuses.
    """
    new = not out.is_dir()
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / LOCK, wait=False):
            clear_leftovers(out)
            for path in contents(out):
                refuse_link(path)
            try:
                yield
            finally:
                nothing = not contents(out)
                if nothing:  # refused before anything was written
                    (out / LOCK).unlink(missing_ok=True)
    finally:
        if new:
            with suppress(OSError):
                out.rmdir()  # only if it is empty


@contextmanager
def adding(folder: Path) -> Iterator[None]:
    """Add to a folder, e.g. to a finished run: other processes that add wait their turn.

    Raises:
        DiskError: the file system refuses.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    refuse_link(folder / LOCK)
    with locked(folder / LOCK):
        clear_leftovers(folder)
        yield


def write_result(path: Path, content: str) -> None:
    """Write one file that the user named; other files in its folder stay."""
    with disk_errors(path):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        clear_dead(path.absolute().parent, f"{path.name}.")
    write_atomic(path, content)


def _check_name(longest: Path, out: Path, option: str) -> None:
    if "\0" in str(out):
        raise UserError(f"{option}: a name cannot hold a NUL character")
    try:
        if any(len(os.fsencode(part)) > _NAME_BYTES for part in longest.parts):
            raise OSError(errno.ENAMETOOLONG, "")  # lstat below ignores names in a folder that does not exist yet
        os.lstat(longest)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except OSError as error:
        shown = str(out) if len(str(out)) < 100 else f"{str(out)[:80]}..."
        raise UserError(f"{option} {shown}: {os.strerror(error.errno or 0).lower()}") from None


def _check_above(folder: Path, out: Path, option: str) -> None:
    """Refuse unless a folder exists or can be made."""
    for place in (folder, *folder.absolute().parents):
        if not os.path.lexists(place):
            continue
        if not place.exists():
            raise UserError(f"{option} {out}: {place} is a symbolic link that leads nowhere")
        if not place.is_dir():
            raise UserError(f"{option} {out}: {place} is a file, not a directory")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{option} {out}: no permission to write in {place}")
        return
