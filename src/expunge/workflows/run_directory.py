"""The directory of a run: who may write to it, what its first start recorded there, and its report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli_w

from expunge.config import Run, check_run
from expunge.core.errors import UserError
from expunge.core.files import DiskError, write_atomic
from expunge.core.output_dir import adding, check_holds_only, contents
from expunge.core.records import RECORD_FILE, REPORT_FILE, RUN_FILE, read_record
from expunge.core.toml import read_toml
from expunge.train.checkpoints import checkpoints

WORK = "work"
"""Folder for everything that a finished run does not need."""


def first_date(out: Path) -> str | None:
    """The date that chat templates were given at the first start of the run in a directory, if any was."""
    if not (out / RUN_FILE).is_file():
        return None
    date = check_run(read_toml(out / RUN_FILE)).model.date
    return None if date is None else date.isoformat()


def check_out(run: Run, out: Path, resume: bool) -> None:
    """Refuse a directory that this run must not write to.

    Raises:
        UserError: it holds something else, another run, or this one unfinished and `resume` is off.
    """
    if not check_holds_only(out, RUN_FILE):
        return
    different = _different(run.tables(), check_run(read_toml(out / RUN_FILE)).tables())
    if different:
        raise UserError(f"{out}: holds another run (different: {', '.join(different[:5])}); choose another --out")
    if not resume:
        state = "already finished" if (out / RECORD_FILE).is_file() else "unfinished; add --resume to go on with it"
        raise UserError(f"{out}: holds this run, {state}")


@contextmanager
def entered(run: Run, out: Path, resume: bool) -> Iterator[None]:
    """Record the run in its claimed directory; if it is refused before the first step, leave nothing there.

    Raises:
        UserError: another process has used the directory since it was checked.
    """
    check_out(run, out, resume)
    new = not contents(out)
    write_atomic(out / RUN_FILE, tomli_w.dumps(run.tables()))
    try:
        yield
    except DiskError:
        raise
    except UserError:
        if new and not checkpoints(out / WORK):
            shutil.rmtree(out / WORK, ignore_errors=True)
            (out / RUN_FILE).unlink()
        raise


def finish(out: Path) -> None:
    """Finish a run whose record exists: write the report, remove scratch."""
    if not (out / REPORT_FILE).is_file():
        _write_page(out)
    shutil.rmtree(out / WORK, ignore_errors=True)


def write_report(run_dir: Path) -> Path:
    """Make `report.html` from a finished run's records.

    Raises:
        UserError: no finished run there.
    """
    read_record(run_dir)
    with adding(run_dir):
        return _write_page(run_dir)


def _write_page(run_dir: Path) -> Path:
    from expunge.reports.html import write_html

    write_html(read_record(run_dir), run_dir, run_dir / REPORT_FILE)
    return run_dir / REPORT_FILE


def _different(ours: object, theirs: object, path: str = "") -> list[str]:
    """Dotted paths at which two trees of tables differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted({*ours, *theirs})
        return [
            found for key in keys for found in _different(ours.get(key), theirs.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if ours == theirs else [path]
