"""`expunge continual`: forget one request after another."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._out import out_path, resumable


def continual(
    file: Annotated[Path, typer.Argument(help="TOML file of a run, with data.requests in place of data.forget.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="Any option of the run: a.b=c.")] = None,
    out: Annotated[
        Path | None, typer.Option(parser=out_path, metavar="PATH", help="Directory of the sequence.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished sequence in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Forget several requests in turn, measuring after each."""
    from expunge.cli._console import console, print_json, progress_for, quiet_libraries
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_folder, new_name
    from expunge.reports.continual import PAGE, print_sequence
    from expunge.workflows.continual import execute_plan, load_plan

    if resume and out is None:
        raise UserError("--resume: say which directory with --out")
    folder = out or Path("runs") / new_name("continual")
    check_folder(folder)
    plan = load_plan(file, folder, settings or ())
    quiet_libraries()
    command = shlex.join(["expunge", *sys.argv[1:]])
    with resumable(folder, option="--resume"):
        record = execute_plan(plan, folder, resume=resume, command=command, progress=progress_for(quiet))
    if as_json:
        print_json({"out": str(folder), **record.model_dump(mode="json")})
        return
    print_sequence(record, console())
    console().paths(report=folder / PAGE)
