"""`expunge report`: make a finished run's page again, or put several runs' robustness side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson


def report(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_DIR...", help="Finished run; or several runs or folders of attacks, to compare."),
    ],
    as_json: AsJson = False,
) -> None:
    """Print a run's verdict and rewrite its report.

    Of several runs, or of folders of attacks on models, it prints their robustness side by side.
    """
    from expunge.cli._console import console, print_record, print_result
    from expunge.core.errors import UserError
    from expunge.core.records import read_record
    from expunge.reports.section import print_section

    if len(run_dirs) > 1:
        names = [folder.name for folder in run_dirs]
        if len(set(names)) < len(names):
            names = list(map(str, run_dirs))
        if len(set(names)) < len(names):
            raise UserError(f"{run_dirs[0]}: named more than once")

        from expunge.reports.robustness import compared
        from expunge.workflows.attack import read_card

        found = compared({name: read_card(folder) for name, folder in zip(names, run_dirs, strict=True)})
        if as_json:
            print_record(found)
            return
        print_section(found, console())
        return
    record = read_record(run_dirs[0])

    from expunge.workflows.run_directory import write_report

    path = write_report(run_dirs[0])
    if as_json:
        print_record(record)
        return
    print_result(record)
    console().paths(report=path)
