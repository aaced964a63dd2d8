"""`expunge reproduce`: a paper's claims on a small model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import Quiet
from expunge.cli._out import out_path, resumable


def reproduce(
    name: Annotated[str, typer.Argument(help="Name (`expunge list reproductions`) or TOML file.")],
    out: Annotated[
        Path | None,
        typer.Option(parser=out_path, metavar="PATH", help="Directory. Default: reproductions/NAME."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Reproduce a paper's claims on a small model.

    Teaches, chooses strengths, runs every seed and writes one table. A second call continues an unfinished one.
    """
    from expunge.cli._console import console, progress_for, quiet_libraries
    from expunge.core.catalog import reproduction
    from expunge.core.output_dir import check_folder

    reproduction(name)  # refused before torch is imported

    from expunge.workflows.reproduce import load_reproduction
    from expunge.workflows.reproduce import reproduce as carry_out

    plan = load_reproduction(name)
    folder = out or Path("reproductions") / Path(name).stem
    check_folder(folder)
    quiet_libraries()
    with resumable():
        table = carry_out(plan, folder, shlex.join(["expunge", *sys.argv[1:]]), progress_for(quiet))
    console().print(table.read_text(encoding="utf-8"), soft_wrap=True)
    console().paths(table=table)
