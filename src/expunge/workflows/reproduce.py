"""A paper's claims on a model of this size: many runs from one file, which a second call resumes, and one table.

Each method's strength is chosen on separate rows and a separate seed; the reported runs use other rows and seeds.
If the claim is about a curve over all strengths, all are reported and none is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from expunge.config import Run, load_tables, read_settings
from expunge.core.catalog import reproduction
from expunge.core.errors import UserError, near
from expunge.core.files import write_atomic
from expunge.core.progress import SILENT, Progress
from expunge.core.records import MODEL_FOLDER, Frozen, Record
from expunge.core.toml import Tables, merge
from expunge.core.validation import check
from expunge.data.load import load_splits
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.measure import measure
from expunge.evaluate.score import load_metrics
from expunge.models.load import load_model
from expunge.reports.claims import Claim, judge
from expunge.reports.quantities import Column, RecordQuantity
from expunge.reports.reproduction import GridPoint, PartialRecord, Reported, Section, choose, table, untouched
from expunge.train.teach import Teach
from expunge.workflows.batch_runs import Runs
from expunge.workflows.teach import execute_teach

TABLE = "table.md"


class Grid(Frozen):
    """Strengths to choose from."""

    key: str = Field(description="Option that sets the strength, e.g. train.lr")
    values: tuple[int | float, ...] = Field(min_length=1)


class Subject(Frozen):
    """Facts, and the model that knows them; tables that it leaves out are those of all subjects."""

    teach: dict[str, Any] | None = Field(None, description="A teaching run: the target; none: `run.model` names it")
    retrained: dict[str, Any] = Field(
        default_factory=dict, description="Changes to it for a reference that never saw the forget rows"
    )
    run: dict[str, Any] = Field(default_factory=dict, description="Tables that all runs share")
    tune: dict[str, Any] = Field(
        default_factory=dict, description="Changes to them when strengths are chosen: other rows to forget"
    )
    reported: dict[str, Any] = Field(default_factory=dict, description="Changes to them in the reported runs")


class Reproduction(Subject):
    """The runs, how strengths are chosen, and the columns of the table."""

    summary: str
    paper: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Seeds that are reported")
    tune_seed: int = Field(100, description="Seed of the runs that strengths are chosen on")
    utility: str = Field(
        "mu9", description="Utility that a strength must keep: an aggregate, or the heading of a column"
    )
    keep: float = Field(0.95, ge=0, le=1, description="Share of its value before that counts as kept")
    leak: str = Field("probability", description="Forget score that should be low")
    target: float | None = Field(
        None, description="Choose what keeps most utility among the strengths that leak at most this; none: by `keep`"
    )
    choose: bool = Field(True, description="Report the chosen strength; false: report all. A method's own wins")
    columns: dict[str, Column] = Field(description="Heading = dotted path into a run's record, or a number made of it")
    grid: Grid
    methods: dict[str, dict[str, Any]] = Field(
        description="Changes for each method; its `grid` and `choose` win, its `tune` applies when strengths are "
        "chosen, its `reported` afterwards"
    )
    subjects: dict[str, Subject] = Field(default_factory=dict, description="Several, each with a table of its own")
    claims: tuple[Claim, ...] = Field((), description="Claims of the paper, judged on every subject")

    def parts(self) -> dict[str, Subject]:
        """Every subject, with the tables of all subjects; a single one has no name."""
        own = Subject(**{name: getattr(self, name) for name in Subject.model_fields})
        return {
            name: Subject(
                teach=subject.teach or own.teach,
                retrained=subject.retrained or own.retrained,
                run=merge(own.run, subject.run),
                tune=merge(own.tune, subject.tune),
                reported=merge(own.reported, subject.reported),
            )
            for name, subject in self.subjects.items()
        } or {"": own}

    def grid_of(self, method: str) -> Grid:
        """The strengths of a method."""
        own = self.methods[method].get("grid")
        return self.grid if own is None else check(Grid, own, f"methods.{method}.grid")

    def chooses(self, method: str) -> bool:
        """Whether one of a method's strengths is chosen, on separate rows, and only that one reported."""
        return bool(self.methods[method].get("choose", self.choose))

    @property
    def kept(self) -> str | RecordQuantity:
        """The utility that a strength must keep."""
        column = self.columns.get(self.utility)
        return column if isinstance(column, RecordQuantity) else self.utility

    def run_of(
        self, subject: Subject, method: str, seed: int, model: Path | None, strength: float, *, tune: bool
    ) -> Run:
        """One run of a method; `model` is the taught target, if one is taught."""
        own = {key: value for key, value in self.methods[method].items() if key not in _OF_PLAN}
        tables = merge(merge(subject.run, own), subject.tune if tune else subject.reported)
        tables = merge(tables, self.methods[method].get("tune" if tune else "reported", {}))
        tables = merge(tables, {"seed": seed} if model is None else {"seed": seed, "model": {"name": str(model)}})
        return load_tables(merge(tables, read_settings([f"{self.grid_of(method).key}={strength!r}"])))


_OF_PLAN = ("grid", "choose", "tune", "reported")
"""Keys of a method that do not belong to its runs."""


def load_reproduction(name: str) -> Reproduction:
    """A shipped reproduction by name, or a TOML file of the same form.

    `extends` names a shipped one that gives every table which the file itself lacks.

    Raises:
        UserError: no such name or file; an unknown key, anywhere in its runs; a claim about what is not there.
    """
    plan = _named_well(check(Reproduction, reproduction(name), ""))
    for subject in plan.parts().values():
        for method in plan.methods:
            for tune in (True, False):
                plan.run_of(subject, method, 0, Path("target"), plan.grid_of(method).values[0], tune=tune)
    for place, claim in enumerate(plan.claims):
        others = [claim.bound] if isinstance(claim.bound, str) else []
        for kind, asked, known in (("column", claim.columns, plan.columns), ("method", others, plan.methods)):
            for one in asked:
                if one not in known:
                    raise UserError(f"claims.{place}: no {kind} '{one}'{near(one, known)}")
        if claim.method not in plan.methods:
            raise UserError(f"claims.{place}.method: no method '{claim.method}'{near(claim.method, plan.methods)}")
    return plan


def _named_well(plan: Reproduction) -> Reproduction:
    """Refuse names of subjects and methods that would lead a run's directory elsewhere.

    Raises:
        UserError: a name with a path in it.
    """
    for kind, named in (("subjects", plan.subjects), ("methods", plan.methods)):
        for name in named:
            if not name or name.startswith(".") or "/" in name or "\\" in name:
                raise UserError(f"{kind}: '{name}' names a folder of runs, so it can hold no path and no leading dot")
    return plan


def reproduce(plan: Reproduction, out: Path, command: str = "", progress: Progress = SILENT) -> Path:
    """Carry out what is not there yet, and write the table.

    Args:
        plan: what to do.
        out: holds one directory a run, and `table.md`; taught models lie under `taught/` by content, for all to find.
        command: the command line, for the records and the table.
        progress: where to report.

    Raises:
        UserError: bad input, or directories that hold other runs.
    """
    sections = [
        _section(plan, name, subject, out / name, Runs(command, progress), progress)
        for name, subject in plan.parts().items()
    ]
    write_atomic(out / TABLE, table(plan.summary, command, plan.columns, sections))
    return out / TABLE


def _section(plan: Reproduction, name: str, subject: Subject, out: Path, series: Runs, progress: Progress) -> Section:
    """All runs of one subject."""
    target = None
    if subject.teach is not None:
        target = execute_teach(check(Teach, subject.teach, "teach"), None, progress).folder / MODEL_FOLDER
    points: dict[str, list[GridPoint]] = {}
    for method in filter(plan.chooses, plan.methods):
        points[method] = []
        for strength in plan.grid_of(method).values:
            run = plan.run_of(subject, method, plan.tune_seed, target, strength, tune=True)
            record = series.record(run, out / "tune" / f"{method}-{strength:g}")
            points[method].append(GridPoint.of(record, plan.grid_of(method).key, strength, plan.kept, plan.leak))
    chosen = {method: choose(found, plan.keep, plan.target) for method, found in points.items()}
    runs: dict[str, dict[float, list[Record]]] = {method: {} for method in plan.methods}
    for seed in plan.seeds:
        for method in plan.methods:
            strengths = (chosen[method].strength,) if method in chosen else plan.grid_of(method).values
            for strength in strengths:
                run = plan.run_of(subject, method, seed, target, strength, tune=False)
                label = f"{method}-{seed}" if method in chosen else f"{method}-{strength:g}-{seed}"
                record = series.record(run, out / "report" / label)
                runs[method].setdefault(strength, []).append(record)
    return Section(
        title=name,
        reported=[*_references(plan, subject, runs, progress), *_reported(plan, runs)],
        points=points,
        chosen=chosen,
        judged=[judge(claim, runs, plan.columns) for claim in plan.claims],
    )


def _reported(plan: Reproduction, runs: Mapping[str, Mapping[float, list[Record]]]) -> list[Reported]:
    return [
        Reported(method=method, strength=f"{plan.grid_of(method).key} {strength:g}", records=records)
        for method, found in runs.items()
        for strength, records in found.items()
    ]


def _references(
    plan: Reproduction,
    subject: Subject,
    runs: Mapping[str, Mapping[float, list[Record]]],
    progress: Progress,
) -> list[Reported]:
    """The target before unlearning, and the model that never saw the forget rows, if one is taught."""
    first = next(iter(next(iter(runs.values())).values()))
    found = [Reported(method="untouched", strength="", records=[untouched(record) for record in first])]
    if subject.retrained:
        found.append(Reported(method="retrained", strength="", records=[_retrained(plan, subject, progress)]))
    return found


def _retrained(plan: Reproduction, subject: Subject, progress: Progress) -> PartialRecord:
    """The reference that never saw the forget rows, as if a run had ended in it."""
    teach: Tables = merge(subject.teach or {}, subject.retrained)
    taught = execute_teach(check(Teach, teach, "retrained"), None, progress)
    method = next(iter(plan.methods))
    strength = plan.grid_of(method).values[0]
    run = plan.run_of(subject, method, plan.seeds[0], taught.folder / MODEL_FOLDER, strength, tune=False)
    found = measure(
        load_model(run.model, progress),
        load_splits(run.data),
        load_metrics(run.evaluate),
        Labeller(run.evaluate.kinds),
        run.evaluate,
        run.seed,
        progress,
        "retrained",
    )
    return PartialRecord(found.scores, found.aggregates, seconds={"train": taught.record.seconds})
