"""`expunge report`: make a finished run's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of the table.")] = False,
) -> None:
    """Write report.html from the run's records, and print its verdict and table."""
    from expunge.cli._console import console, print_result
    from expunge.core.records import read_record
    from expunge.run import write_report

    record = read_record(run_dir)
    path = write_report(run_dir)
    if as_json:
        print(record.model_dump_json(indent=1))
        return
    print_result(record)
    console().print(f"\nreport  {path}", highlight=False)
