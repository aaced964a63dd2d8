"""`expunge continual`: forget one request after another."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson, Quiet, RunSettings
from expunge.cli._out import out_path, resumable


def continual(
    file: Annotated[Path, typer.Argument(help="TOML file of a run, with data.requests instead of data.forget.")],
    settings: RunSettings = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=out_path, metavar="PATH", help="Directory. Default: a new one in runs/."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished sequence in --out.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Forget several requests in turn, measuring after each."""
    from expunge.cli._console import console, print_json, progress_for, quiet_libraries
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_folder, new_name
    from expunge.core.toml import read_toml

    if resume and out is None:
        raise UserError("--resume: say which directory with --out")
    folder = out or Path("runs") / new_name("continual")
    check_folder(folder)
    read_toml(file)  # refused before torch is imported

    from expunge.reports.continual import PAGE, print_sequence
    from expunge.workflows.continual import execute_plan, load_plan

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
