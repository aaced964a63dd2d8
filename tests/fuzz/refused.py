"""What it means that a bad input was refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bad_inputs import Call, Case
from sandbox import Outcome, expunge
from world import World

_LONGEST = 500
"""Characters of the one line that names what is wrong."""


def fault_of(case: Case, world: World, scratch: Path) -> tuple[Call, Outcome, str | None]:
    """Carry out a case; the last part says how it was not refused as it should be, None where all is well."""
    with _folder(scratch) as folder:
        call = case.call(world, folder)
        before = [_snapshot(folder), _snapshot(world.folder)]
        cache = folder.with_name(f"{folder.name}.cache")
        outcome = expunge([*call.arguments], folder, environment={"EXPUNGE_CACHE": str(cache)})
        changed = _changed(before, [_snapshot(folder), _snapshot(world.folder)]) or _changed([{}], [_snapshot(cache)])
    return call, outcome, _fault(outcome, changed)


def _fault(outcome: Outcome, changed: str | None) -> str | None:
    lines = [line for line in outcome.err.splitlines() if line.strip()]
    if outcome.timed_out:
        return "did not end"
    if "Traceback (most recent call last)" in outcome.err + outcome.out:
        return f"traceback: {lines[-1] if lines else ''}"
    if outcome.code == 0:
        return "accepted in silence"
    if outcome.code != 2:
        return f"exit code {outcome.code}: {lines[-1] if lines else ''}"
    told = [line for line in lines if line.startswith("expunge")]
    if len(told) != 1 or lines[-1] != told[0]:
        return f"not one line: {lines[:3]}"
    if len(told[0]) > _LONGEST:
        return f"a line of {len(told[0])} characters"
    return f"wrote {changed}" if changed else None


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=scratch) as outer:
        folder = Path(outer) / "here"
        folder.mkdir()
        yield folder


def _snapshot(folder: Path) -> dict[str, str]:
    """Path below the folder -> what lies there."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where) / name
            kind = "link" if path.is_symlink() else "folder" if path.is_dir() else _digest(path)
            found[str(path.relative_to(folder))] = kind
    return found


def _digest(path: Path) -> str:
    status = path.stat()
    if status.st_size > 1 << 16:
        return f"{status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changed(before: list[dict[str, str]], after: list[dict[str, str]]) -> str | None:
    for old, new in zip(before, after, strict=True):
        for path in sorted({*old, *new}):
            if old.get(path) != new.get(path):
                return path
    return None
