"""Writing files: a kill, a full disk or a second process leaves either the old state or the new one, whole."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from expunge.core.errors import ExpungeError, UserError
from expunge.core.memory import is_out_of_memory

LOCK = ".lock"
"""Name of the lock file of a folder."""
_PARTIAL = ".partial"
_UNFINISHED = re.compile(r"\.(?P<process>\d+)-(?P<machine>[0-9a-f]{8})-[0-9a-f]{8}\.partial$")
"""End of the name of a file that is being written: process and machine of the writer."""
_FULL = "no space left on the device"
_TOO_LONG = "the file is larger than the limit for this process"
_NO_SPACE = (
    "no space left",
    "os error 28",
    "file write failed",
    "iostream error",
    "unexpected pos",
    "disk quota",
    "os error 122",
)
_TOO_LARGE = ("file too large", "os error 27")
"""Messages of torch, safetensors and pyarrow for errors that they do not raise as `OSError`."""


class DiskError(ExpungeError):
    """The file system failed during the work, e.g. because it is full; finished work is kept."""


class NotWritable(DiskError, UserError):
    """There is no permission to write here."""


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield the name of a new empty file in the same folder; when the block ends without an error it becomes `path`.

    The name is unique, so that several processes may write the same path: the last one wins, and no reader ever meets a
    part of a file. The content is on the disk before the name changes.

    Args:
        path: the file to write or replace.
        private: readable by its owner only; otherwise the umask decides.

    Raises:
        DiskError: the file system refused.
    """
    with disk_errors(path):
        partial = _unused_name(path)
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666))
        mode = stat.S_IMODE(partial.stat().st_mode)
        try:
            yield partial
            partial.chmod(mode)  # libraries that write a file of their own and rename it do not ask the umask
            _sync(partial)
            os.replace(partial, path)
            _sync(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Write a file so that no reader meets half of it.

    Args:
        path: the file to write or replace.
        content: text is encoded as UTF-8.
        private: readable by its owner only: for everything that holds text of forget rows.

    Raises:
        DiskError: the file system refused.
    """
    with replacing(path, private=private) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error it takes the name `final`, whole.

    An older folder of that name is replaced. Every file gets the mode that the umask gives to a new one.

    Raises:
        DiskError: the file system refused.
    """
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = _unused_name(final)
        partial.mkdir()
        try:
            yield partial
            settle_folder(partial)
            if final.exists():
                old = _unused_name(final)
                final.replace(old)
                partial.replace(final)
                shutil.rmtree(old, ignore_errors=True)
            else:
                partial.replace(final)
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def settle_folder(folder: Path) -> None:
    """Give every file below a folder the mode of a new file, and put all of them on the disk."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666  # a new folder shows what the umask leaves
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(mode)
                _sync(path)
        _sync(Path(parent))


def is_leftover(path: Path) -> bool:
    """Whether this is an unfinished file or folder of a process that was killed, or one that is being written."""
    return path.name.endswith(_PARTIAL)


def clear_leftovers(folder: Path) -> None:
    """Delete unfinished files of killed processes in a folder; for the process that holds the folder's lock."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path):
            _delete(path)


def clear_dead(folder: Path, name: str = "") -> None:
    """Delete unfinished files of dead processes of this machine in a folder whose lock is not held.

    Args:
        folder: which need not exist.
        name: only unfinished versions of this file or folder.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        found = _UNFINISHED.search(path.name) if path.name.startswith(name) else None
        if found and found["machine"] == _machine() and not _runs(int(found["process"])):
            _delete(path)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Let one process at a time into a block.

    The lock ends with its process, however that ends. The lock file stays: deleting it would let two processes in.

    Args:
        path: the lock file.
        wait: wait for another process; otherwise refuse.

    Raises:
        UserError: another process holds the lock, and `wait` is off.
        DiskError: the lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        with disk_errors(path):
            lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise UserError(f"{path.parent}: another process is working in this directory") from None
    try:
        yield
    finally:
        lock.release()


def refuse_link(path: Path) -> None:
    """Refuse to write below a link: a directory from somebody else may hold one that leads anywhere.

    Raises:
        UserError: it is a link.
    """
    if path.is_symlink():
        raise UserError(f"{path}: is a symbolic link, and nothing is written through it; replace it by a folder")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a refusal of the file system, in whatever form a library raises it, into one line.

    Raises:
        DiskError: instead of the error.
    """
    try:
        yield
    except (ExpungeError, KeyboardInterrupt):
        raise
    except Exception as error:
        if (reason := disk_problem(error)) is not None:
            kind = DiskError if reason in (_FULL, _TOO_LONG) else NotWritable
            raise kind(f"{path}: {reason}") from error
        raise


def disk_problem(error: BaseException) -> str | None:
    """The refusal of the file system in words; None if the error has another cause."""
    text = str(error).lower()
    if not isinstance(error, OSError):
        if any(part in text for part in _NO_SPACE):
            return _FULL
        return _TOO_LONG if any(part in text for part in _TOO_LARGE) else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _FULL
    if error.errno == errno.EFBIG:
        return _TOO_LONG
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write here"
    if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.EMFILE):
        return f"cannot be written: {os.strerror(error.errno).lower()}"
    return None


def resource_problem(error: BaseException) -> str | None:
    """The exhausted resource in words, wherever that happened; None if the error has another cause."""
    if is_out_of_memory(error):
        return "out of memory; use a smaller or quantized model, a smaller train.batch_size, or end other programs"
    reason = disk_problem(error)
    if reason is None:
        return None
    name = getattr(error, "filename", None)
    return f"{name}: {reason}" if name else reason


def require_space(path: Path, num_bytes: int, what: str) -> None:
    """Refuse before any work if the disk has no room for the result.

    Raises:
        UserError: fewer than `num_bytes` free where `path` will be.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise UserError(f"{path}: {what} needs {_size(num_bytes)} of disk, {_size(free)} are free")


def _size(num_bytes: float) -> str:
    """In GB, or in MB where that would be a small number."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Distinguishes machines that share a file system."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _runs(process: int) -> bool:
    """Whether a process of this number exists; True if that cannot be found out."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _unused_name(path: Path) -> Path:
    """A name beside `path` that nothing has; short enough wherever `path` itself is."""
    ending = f".{os.getpid()}-{_machine()}-{secrets.token_hex(4)}{_PARTIAL}"
    kept = os.fsencode(path.name)[: 255 - len(ending)].decode(errors="ignore")
    return path.with_name(f"{kept}{ending}")


def _sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk; not every file system can do it for folders."""
    if path.is_dir():
        if sys.platform != "win32":
            with suppress(OSError):
                _sync_descriptor(os.open(path, os.O_RDONLY))
    else:
        _sync_descriptor(os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY))


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
