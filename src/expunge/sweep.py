"""One option over a grid: a run at each value, and curves of what they gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from expunge.config import Run, load_run, merge
from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.files import write_atomic
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Frozen, Record
from expunge.core.toml import Tables, read_toml
from expunge.core.validation import check
from expunge.models.load import load_model
from expunge.reports.reproduction import at_path
from expunge.series import Series

FOLDER = plugins.ROOT / "sweeps"
RECORD = "sweep.json"


class Sweep(Frozen):
    """What is varied, in which runs, and what is looked at."""

    summary: str
    paper: str
    key: str = Field(description="Option that is varied, e.g. forget.scale")
    across: str = Field(description="What it is, in the words of a figure")
    values: tuple[int | float, ...] | Literal["blocks"] = Field(description="blocks: every block from the third on")
    mark: float | None = Field(None, description="A value worth a line in the figure")
    marked: str = Field("", description="What happens there")
    columns: dict[str, str] = Field(description="Heading = dotted path into a run's record")
    run: dict[str, Any] = Field(description="Tables that all runs share")
    lines: dict[str, dict[str, Any]] = Field(min_length=1, description="What differs for each line of the figure")


class SweepPoint(Frozen):
    """One run."""

    value: float
    shown: dict[str, float | None]
    """By heading; None where the record has no such number."""
    seconds: float


class SweepRecord(Frozen):
    """A whole sweep."""

    plan: Sweep
    command: str
    lines: dict[str, list[SweepPoint]]


def names() -> list[str]:
    """Names of the shipped sweeps."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_sweep(name: str) -> Sweep:
    """A shipped sweep by name, or a TOML file of the same form.

    Raises:
        UserError: no such name or file; an unknown key.
    """
    if not name.endswith(".toml") and name not in names():
        raise UserError(f"sweep: no '{name}'{near(name, names())}")
    return check(Sweep, read_toml(Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"), "")


def execute_sweep(
    plan: Sweep,
    out: Path,
    file: Path | None = None,
    given: Tables | None = None,
    settings: Sequence[str] = (),
    command: str = "",
    progress: Progress = SILENT,
) -> SweepRecord:
    """Carry out what is not there yet, and write the record.

    Args:
        plan: what to vary.
        out: holds one directory a run, and the record.
        file: run file that gives model and data; None takes the embedded demo's.
        given: tables of the run file that win over it and over the plan.
        settings: `a.b=c` strings that win over everything but the varied option.
        command: the command line, for the records.
        progress: where to report.

    Raises:
        UserError: bad input, or directories that hold other runs.
    """

    def run(line: str, value: float) -> Run:
        tables = merge(merge(plan.run, plan.lines[line]), given or {})
        return load_run(file, tables, [*settings, f"{plan.key}={value!r}"])

    values = plan.values if plan.values != "blocks" else _blocks(run(next(iter(plan.lines)), 0))
    runs = {line: [(value, run(line, value)) for value in values] for line in plan.lines}
    series = Series(command, progress)
    lines = {}
    for line, some in runs.items():
        records = [(value, series.record(run, out / f"{line}-{value:g}")) for value, run in some]
        lines[line] = [_point(plan, value, record) for value, record in records]
    found = SweepRecord(plan=plan, command=command, lines=lines)
    write_atomic(out / RECORD, found.model_dump_json(indent=1))
    return found


def _blocks(run: Run) -> tuple[int, ...]:
    """Every block of the model that has two below it."""
    return tuple(range(2, len(load_model(run.model).blocks())))


def _point(plan: Sweep, value: float, record: Record) -> SweepPoint:
    plain = record.model_dump(mode="json")
    found = {heading: _number(at_path(plain, path)) for heading, path in plan.columns.items()}
    return SweepPoint(value=value, shown=found, seconds=record.seconds["train"])


def _number(value: Any) -> float | None:
    if isinstance(value, dict):
        value = value.get("value")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
