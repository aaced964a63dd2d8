"""One option over a grid: a run at each value, and curves of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from expunge.config import Run, load_run
from expunge.core.catalog import SWEEPS, find
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Frozen, Record, Score
from expunge.core.report_section import Cell, Chart, Diagnosis, Mark, ReportSection, Series, Table
from expunge.core.toml import Tables, merge, read_toml
from expunge.core.validation import check
from expunge.models.load import load_model
from expunge.reports.quantities import at_path, bare
from expunge.workflows.batch_runs import Runs


class ChoiceRule(Frozen):
    """Which value of a sweep to take: the largest or smallest of those whose run meets all bounds."""

    prefer: Literal["largest", "smallest"]
    keep: dict[str, float] = Field({}, description="split.metric = least share of its value before the run")
    lose: dict[str, float] = Field({}, description="split.metric = most share of its value before the run")
    then: str = Field("", description="The next step; {value} is the chosen value")


class Sweep(Frozen):
    """The varied option, its runs, and the numbers that are compared."""

    summary: str
    paper: str
    key: str = Field(description="Option that is varied, e.g. forget.scale")
    across: str = Field(description="Its meaning, as the label of an axis")
    values: tuple[int | float, ...] | Literal["blocks"] = Field(description="blocks: every block from the third on")
    mark: float | None = Field(None, description="A value worth a line in the figure")
    marked: str = Field("", description="Label of that line")
    choice: ChoiceRule | None = Field(None, description="Which value to take in the end")
    columns: dict[str, str] = Field(description="Heading = dotted path into a run's record")
    run: dict[str, Any] = Field(description="Tables that all runs share")
    lines: dict[str, dict[str, Any]] = Field(min_length=1, description="Changes for each line of the figure")


def load_sweep(name: str) -> Sweep:
    """A shipped sweep by name, or a TOML file of the same form.

    Raises:
        UserError: no such name or file; an unknown key.
    """
    return check(Sweep, read_toml(find(SWEEPS, name, "sweep")), "")


def execute_sweep(
    name: str,
    out: Path,
    file: Path | None = None,
    given: Tables | None = None,
    settings: Sequence[str] = (),
    command: str = "",
    progress: Progress = SILENT,
) -> Diagnosis:
    """Carry out what is not there yet.

    Args:
        name: as `load_sweep`.
        out: holds one directory a run.
        file: run file that gives model and data; None takes the embedded demo's.
        given: tables of the run file that win over it and over the plan.
        settings: `a.b=c` strings that win over everything but the varied option.
        command: the command line, for the records.
        progress: where to report.

    Raises:
        UserError: bad input, or directories that hold other runs.
    """
    plan = load_sweep(name)

    def run(line: str, value: float) -> Run:
        tables = merge(merge(plan.run, plan.lines[line]), given or {})
        return load_run(file, tables, [*settings, f"{plan.key}={value!r}"])

    values = plan.values if plan.values != "blocks" else _blocks(run(next(iter(plan.lines)), 0))
    runs = {line: [run(line, value) for value in values] for line in plan.lines}
    series = Runs(command, progress)
    records = {
        line: [series.record(one, out / f"{line}-{value:g}") for one, value in zip(some, values, strict=True)]
        for line, some in runs.items()
    }
    first = next(iter(records.values()))[0]
    return Diagnosis(
        diagnostic=Path(name).stem,
        subject=first.model.source,
        models={"original": first.model.source},
        data=first.data,
        options=plan.model_dump(mode="json"),
        seed=first.config["seed"],
        provenance=first.provenance.model_copy(update={"command": command}),
        seconds=sum(record.seconds["total"] for some in records.values() for record in some),
        finding=_finding(plan, values, records),
    )


def _blocks(run: Run) -> tuple[int, ...]:
    """Every block of the model that has two below it."""
    return tuple(range(2, len(load_model(run.model).blocks())))


def _finding(plan: Sweep, values: Sequence[float], records: Mapping[str, Sequence[Record]]) -> ReportSection:
    cells = {
        heading: {line: [_cell(record, path) for record in some] for line, some in records.items()}
        for heading, path in plan.columns.items()
    }
    marks = [] if plan.mark is None else [Mark(text=plan.marked, axis="x", at=plan.mark)]
    rows: list[list[Cell]] = [
        [line, value, *(by_line[line][place] for by_line in cells.values()), round(some[place].seconds["train"], 1)]
        for line, some in records.items()
        for place, value in enumerate(values)
    ]
    return ReportSection(
        title=plan.summary,
        sentence=f"{sum(map(len, records.values()))} runs: {plan.across} from {values[0]:g} to {values[-1]:g}.",
        notes=[
            *(
                []
                if plan.choice is None
                else [chosen_value(plan, plan.choice, values, some) for some in records.values()]
            ),
            f"Varied: {plan.key}. Every run starts from the same model. Source of the question: {plan.paper}.",
        ],
        tables=[Table(caption=plan.summary, columns=["line", plan.across, *cells, "training, s"], rows=rows)],
        charts=[
            Chart(
                title=heading,
                caption="",
                across=plan.across,
                up=heading,
                style="line",
                series=[_line(line, values, some) for line, some in by_line.items()],
                marks=marks,
            )
            for heading, by_line in cells.items()
        ],
    )


def chosen_value(plan: Sweep, choice: ChoiceRule, values: Sequence[float], records: Sequence[Any]) -> str:
    """The value to take, in words; bounds on splits that were not measured do not count."""
    keep, lose = (
        {path: bound for path, bound in bounds.items() if any(_share(one, path) is not None for one in records)}
        for bounds in (choice.keep, choice.lose)
    )
    missing = [path for path in (*choice.keep, *choice.lose) if path not in keep and path not in lose]
    wanted = " and ".join(
        [
            *(f"{path} keeps {bound:.0%}" for path, bound in keep.items()),
            *(f"{path} falls to {bound:.0%}" for path, bound in lose.items()),
        ]
    )
    unmeasured = f" Not measured, and so without a bound: {', '.join(missing)}." if missing else ""
    safe = [
        place
        for place, record in enumerate(records)
        if all((share := _share(record, path)) is not None and share >= bound for path, bound in keep.items())
    ]
    meeting = [
        place
        for place in safe
        if all((share := _share(records[place], path)) is not None and share <= bound for path, bound in lose.items())
    ]
    order = max if choice.prefer == "largest" else min
    if wanted and meeting:
        value = order(values[place] for place in meeting)
        then = f" {choice.then.format(value=f'{value:g}')}" if choice.then else ""
        return f"Take {plan.key} = {value:g}: the {choice.prefer} at which {wanted} of what it was.{then}{unmeasured}"
    nearest = ""
    if lose and safe:
        path = next(iter(lose))
        best = min(safe, key=lambda place: _share(records[place], path) or 0.0)
        nearest = (
            f" Of those that keep enough, {values[best]:g} forgets most ({path} at {_share(records[best], path):.0%})."
        )
    return f"At no value of {plan.key} here it is true that {wanted or 'anything was measured'}.{nearest}{unmeasured}"


def _share(record: Any, path: str) -> float | None:
    """A score after the run as a share of the one before; None if either is missing, or the latter is 0."""
    before, after = (bare(at_path(record, f"{stage}.{path}")) for stage in ("before", "after"))
    return None if before is None or after is None or not before else after / before


def _line(name: str, values: Sequence[float], cells: Sequence[Cell]) -> Series:
    """A line through the numbers that there are, with their intervals where all have one."""
    known = [(value, cell) for value, cell in zip(values, cells, strict=True) if bare(cell) is not None]
    scores = [cell for _, cell in known if isinstance(cell, Score)]
    lows, highs = ([getattr(score, end) for score in scores] for end in ("low", "high"))
    whole = len(scores) == len(known) and None not in (*lows, *highs)
    return Series(
        name=name,
        x=[float(value) for value, _ in known],
        y=[bare(cell) for _, cell in known],
        low=lows if whole else [],
        high=highs if whole else [],
    )


def _cell(record: Record, path: str) -> Cell:
    """The score at a path of a record, or the finite number."""
    found = at_path(record, path)
    return found if isinstance(found, Score | str) else bare(found)
