"""Writing files so that a kill at any moment leaves either the old state or the new one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expunge.core.errors import UserError

_PARTIAL = ".partial"


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name and rename it into place.

    Raises:
        UserError: no space left on the device.
    """
    partial = path.with_name(f"{path.name}{_PARTIAL}")
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path):
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


@contextmanager
def publish_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error it takes the name `final`, whole.

    An older folder of that name is replaced; a partial one that a kill left behind is cleared.
    """
    partial = final.with_name(f"{final.name}{_PARTIAL}")
    old = final.with_name(f"{final.name}.old{_PARTIAL}")
    for left_behind in (partial, old):
        shutil.rmtree(left_behind, ignore_errors=True)
    with disk_errors(final):
        partial.mkdir(parents=True)
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if final.exists():
            final.replace(old)
        partial.replace(final)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{path}: no space left on the device") from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise UserError(f"{path}: no permission to write here") from error
        raise


def require_space(path: Path, num_bytes: int, what: str) -> None:
    """Refuse before any work when the disk cannot hold what will be written.

    Raises:
        UserError: fewer than `num_bytes` free where `path` will be.
    """
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < num_bytes:
        raise UserError(f"{path}: {what} needs {num_bytes / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
