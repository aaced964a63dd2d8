"""`expunge run`: unlearn, and show whether it is really gone."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli._options import (
    AsJson,
    Forget,
    ModelName,
    Neighbour,
    Quiet,
    Retain,
    RunSettings,
    Verbose,
)
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
        file: Annotated[Path | None, typer.Argument(help="TOML file of the run. Default: the bundled demo.")] = None,
        model: ModelName = None,
        forget: Forget = None,
        retain: Retain = None,
        neighbour: Neighbour = None,
        general: Annotated[str | None, typer.Option(help="Unrelated data; measured, not trained on.")] = None,
        recipe: Annotated[str | None, typer.Option(help="Named method (`expunge list recipes`) or TOML file.")] = None,
        settings: RunSettings = None,
        out: Annotated[
            Path | None,
            typer.Option(parser=out_path, metavar="PATH", help="Directory. Default: a new one in runs/."),
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run in --out.")] = False,
        push_to_hub: Annotated[str | None, typer.Option(help="Upload the model to this hub repository.")] = None,
        as_json: AsJson = False,
        quiet: Quiet = False,
        verbose: Verbose = False,
    ) -> None:
        from expunge.cli._console import console, print_json, print_result, progress_for, quiet_libraries
        from expunge.cli._early import check_plan
        from expunge.cli._failures import check_attacks
        from expunge.config import load_run
        from expunge.core.errors import UserError
        from expunge.core.output_dir import check_folder, new_name
        from expunge.core.records import ATTACKS_FILE, MODEL_FOLDER, RECORD_FILE, REPORT_FILE, RUN_FILE

        if resume and out is None:
            raise UserError("--resume: say which run directory with --out")
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
        check_folder(folder)
        if not (folder / RECORD_FILE).is_file():
            check_plan(plan)

        from expunge.models.save import check_repo
        from expunge.models.save import push_to_hub as push
        from expunge.reports.verdict import verdict
        from expunge.workflows.attack import broken
        from expunge.workflows.run import execute

        if push_to_hub is not None:
            check_repo(push_to_hub)
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
            print_result(record, verbose)
            console().paths(report=folder / REPORT_FILE, model=folder / MODEL_FOLDER)
        if record.robustness is not None:
            check_attacks(broken(record.robustness), folder / ATTACKS_FILE, verbose)

    return command


def _squeeze(record: Record) -> dict[str, Any]:
    from expunge.reports.squeeze import sentence

    if record.squeeze is None:
        return {}
    return {"squeeze": {"sentence": sentence(record.squeeze), **record.squeeze.model_dump()}}
