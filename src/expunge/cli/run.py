"""`expunge run`: unlearn, and show whether it is really gone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli._out import out_path, resumable

if TYPE_CHECKING:
    from expunge.core.records import Record

HELP = """Remove knowledge from a model and measure what is left.

A run chooses the weights to train, measures, trains, measures again, attacks the result and writes a report. A run
file from somebody else can neither run code nor send rows anywhere unless you allow it here (SECURITY.md).
"""


def runner(**tables: Any) -> Callable[..., None]:
    """A command that carries out a run with these tables of the run file on top.

    Args:
        tables: e.g. `diagnose={"squeeze": {}}`; the command line's own options win over them.
    """

    def command(
        file: Annotated[Path | None, typer.Argument(help="TOML file of the run; none: the embedded demo.")] = None,
        model: Annotated[str | None, typer.Option(help="Embedded name, folder, .gguf file or hub id.")] = None,
        forget: Annotated[str | None, typer.Option(help="Data to forget, e.g. people:forget or facts.jsonl.")] = None,
        retain: Annotated[str | None, typer.Option(help="Data to keep.")] = None,
        neighbour: Annotated[str | None, typer.Option(help="Data near the forgotten, only measured.")] = None,
        general: Annotated[str | None, typer.Option(help="Other knowledge, only measured.")] = None,
        recipe: Annotated[str | None, typer.Option(help="Named method; see `expunge list recipes`.")] = None,
        settings: Annotated[list[str] | None, typer.Option("--set", help="Any option of the run: a.b=c.")] = None,
        out: Annotated[Path | None, typer.Option(parser=out_path, metavar="PATH", help="Run directory.")] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
        push_to_hub: Annotated[str | None, typer.Option(help="Upload the model to this hub repository.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
        verbose: Annotated[
            bool, typer.Option("--verbose", help="Print the traceback of an attack that fails.")
        ] = False,
    ) -> None:
        from expunge.cli._console import console, print_json, print_result, progress_for, quiet_libraries
        from expunge.cli._failures import check_attacks
        from expunge.config import load_run
        from expunge.core.errors import UserError
        from expunge.core.output_dir import new_name
        from expunge.core.records import ATTACKS_FILE, MODEL_FOLDER, REPORT_FILE, RUN_FILE
        from expunge.models.save import check_repo
        from expunge.models.save import push_to_hub as push
        from expunge.reports.verdict import verdict
        from expunge.workflows.attack import broken
        from expunge.workflows.run import execute

        if resume and out is None:
            raise UserError("--resume: say which run directory with --out")
        if push_to_hub is not None:
            check_repo(push_to_hub)
        if resume and out is not None and file is None:
            begun = out / RUN_FILE
            named = (model, forget, retain, neighbour, general, recipe, settings)
            if begun.is_file():
                file = begun
            elif not out.is_dir() and not any(named):  # more likely a misspelt --out than the embedded demo
                raise UserError(f"{out}: no {RUN_FILE} here, so there is no run to go on with")
        data = {"forget": forget, "retain": retain, "neighbour": neighbour, "general": general}
        given: dict[str, Any] = {**tables, "data": {name: value for name, value in data.items() if value is not None}}
        if model is not None:
            given["model"] = {"name": model}
        if recipe is not None:
            given["recipe"] = recipe
        plan = load_run(file, given, settings or ())
        for name in tables.get("diagnose", ()):
            if getattr(plan.diagnose, name) is None:
                raise UserError(f"diagnose.{name}: this command is a run with it on, so it cannot be set to false")
        folder = out or Path("runs") / new_name(Path(plan.recipe).stem)
        quiet_libraries()
        command = shlex.join(["expunge", *sys.argv[1:]])
        with resumable(folder, option="--resume"):
            result = execute(plan, folder, resume=resume, command=command, progress=progress_for(quiet))
        record = result.record
        if push_to_hub is not None:
            push(folder / MODEL_FOLDER, push_to_hub)
        if as_json:
            print_json(
                {
                    "run_dir": str(folder),
                    "recipe": record.recipe,
                    "seconds": record.seconds["total"],
                    "verdict": verdict(record).sentence,
                    "warnings": record.warnings,
                    **_squeeze(record),
                    "scores": {
                        stage: {
                            split: {name: score.model_dump() for name, score in metrics.items()}
                            for split, metrics in scores.items()
                        }
                        for stage, scores in (("before", record.before), ("after", record.after))
                    },
                    "kinds": record.kinds,
                    "aggregates": {
                        stage: {name: aggregate.model_dump() for name, aggregate in aggregates.items()}
                        for stage, aggregates in (
                            ("before", record.aggregates_before),
                            ("after", record.aggregates_after),
                        )
                    },
                }
            )
        else:
            print_result(record)
            console().paths(report=folder / REPORT_FILE, model=folder / MODEL_FOLDER)
        if record.robustness is not None:
            check_attacks(broken(record.robustness), folder / ATTACKS_FILE, verbose)

    return command


def _squeeze(record: Record) -> dict[str, Any]:
    from expunge.reports.squeeze import sentence

    if record.squeeze is None:
        return {}
    return {"squeeze": {"sentence": sentence(record.squeeze), **record.squeeze.model_dump()}}
