"""A paper's claims on a model of this size: many runs from one file, each found again by a second call, and one table.

Each method's strength is chosen on rows and a seed of their own; what is reported uses other rows and other seeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from expunge.config import Run, load_tables, merge, read_settings
from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.files import write_atomic
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Frozen
from expunge.core.toml import Tables, read_toml
from expunge.core.validation import check
from expunge.data.load import load_splits
from expunge.evaluate.kinds import Labeller
from expunge.evaluate.measure import measure
from expunge.evaluate.score import load_metrics
from expunge.models.load import load_model
from expunge.reports.reproduction import Point, choose, table
from expunge.run import MODEL_FOLDER
from expunge.series import Runs
from expunge.teach import execute_teach
from expunge.train.teach import Teach

FOLDER = plugins.ROOT / "reproductions"
TABLE = "table.md"


class Grid(Frozen):
    """Strengths to choose from."""

    key: str = Field(description="Option that sets the strength, e.g. train.lr")
    values: tuple[float, ...] = Field(min_length=1)


class Reproduction(Frozen):
    """What is run, how strengths are chosen, and what the table shows."""

    summary: str
    paper: str
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Seeds that are reported")
    tune_seed: int = Field(100, description="Seed of the runs that strengths are chosen on")
    utility: str = Field("mu9", description="Aggregate that a strength must keep")
    keep: float = Field(0.95, ge=0, le=1, description="Share of its value before that counts as kept")
    leak: str = Field("probability", description="Forget score that should be low")
    columns: dict[str, str] = Field(description="Heading = dotted path into a run's record")
    teach: dict[str, Any] = Field(description="A teaching run: the target")
    retrained: dict[str, Any] = Field(
        default_factory=dict, description="What of it differs for a reference that never saw the forget rows"
    )
    run: dict[str, Any] = Field(description="Tables that all runs share")
    tune: dict[str, Any] = Field(description="What of them differs when strengths are chosen: other rows to forget")
    reported: dict[str, Any] = Field(default_factory=dict, description="What of them differs in the reported runs")
    grid: Grid
    methods: dict[str, dict[str, Any]] = Field(description="What differs for each method; its `grid` wins")

    def grid_of(self, method: str) -> Grid:
        """The strengths of a method."""
        own = self.methods[method].get("grid")
        return self.grid if own is None else check(Grid, own, f"methods.{method}.grid")

    def run_of(self, method: str, seed: int, model: Path, strength: float, *, tune: bool) -> Run:
        """One run of a method."""
        own = {key: value for key, value in self.methods[method].items() if key != "grid"}
        tables = merge(merge(self.run, own), self.tune if tune else self.reported)
        tables = merge(tables, {"seed": seed, "model": {"name": str(model)}})
        return load_tables(merge(tables, read_settings([f"{self.grid_of(method).key}={strength!r}"])))


def names() -> list[str]:
    """Names of the shipped reproductions."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_reproduction(name: str) -> Reproduction:
    """A shipped reproduction by name, or a TOML file of the same form.

    `extends` names a shipped one that gives every table which the file itself lacks.

    Raises:
        UserError: no such name or file; an unknown key, anywhere in its runs.
    """
    if not name.endswith(".toml") and name not in names():
        raise UserError(f"reproduce: no '{name}'{near(name, names())}")
    tables = read_toml(Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml")
    if "extends" in tables:
        tables = {**read_toml(FOLDER / f"{tables.pop('extends')}.toml"), **tables}
    plan = check(Reproduction, tables, "")
    for method in plan.methods:
        for tune in (True, False):
            plan.run_of(method, 0, Path("target"), plan.grid_of(method).values[0], tune=tune)
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
    target = execute_teach(check(Teach, plan.teach, "teach"), None, progress).folder / MODEL_FOLDER
    series = Runs(command, progress)
    points: dict[str, list[Point]] = {}
    for method in plan.methods:
        points[method] = []
        for strength in plan.grid_of(method).values:
            run = plan.run_of(method, plan.tune_seed, target, strength, tune=True)
            record = series.record(run, out / "tune" / f"{method}-{strength:g}")
            points[method].append(Point.of(record, plan.grid_of(method).key, strength, plan.utility, plan.leak))
    chosen = {method: choose(found, plan.keep) for method, found in points.items()}
    records: dict[str, list[dict[str, Any]]] = {}
    for seed in plan.seeds:
        for method in plan.methods:
            run = plan.run_of(method, seed, target, chosen[method].strength, tune=False)
            record = series.record(run, out / "report" / f"{method}-{seed}")
            records.setdefault(method, []).append(record.model_dump(mode="json"))
    if plan.retrained:
        records = {"retrained": [_retrained(plan, progress)], **records}
    text = table(plan.summary, command, plan.columns, points, chosen, records)
    write_atomic(out / TABLE, text)
    return out / TABLE


def _retrained(plan: Reproduction, progress: Progress) -> dict[str, Any]:
    """The reference that never saw the forget rows, as if a run had ended in it."""
    teach: Tables = merge(plan.teach, plan.retrained)
    taught = execute_teach(check(Teach, teach, "retrained"), None, progress)
    method = next(iter(plan.methods))
    strength = plan.grid_of(method).values[0]
    run = plan.run_of(method, plan.seeds[0], taught.folder / MODEL_FOLDER, strength, tune=False)
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
    return {
        "after": {
            split: {name: score.model_dump() for name, score in scores.items()}
            for split, scores in found.scores.items()
        },
        "aggregates_after": {name: aggregate.model_dump() for name, aggregate in found.aggregates.items()},
        "seconds": {"train": taught.record.seconds},
    }
