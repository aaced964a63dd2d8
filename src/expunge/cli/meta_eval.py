"""`expunge meta-eval`: which metrics deserve trust?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson, Quiet
from expunge.cli._out import out_path


def meta_eval(
    pool: Annotated[Path, typer.Argument(help="TOML file: models with and without the facts, and unlearned models.")],
    out: Annotated[
        Path | None,
        typer.Option(parser=out_path, metavar="PATH", help="Directory of the record. Default: no record."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Test which metrics can be trusted.

    Measures whether metrics separate models that know the facts from models that do not, and whether they are
    robust to relearning and quantization.
    """
    import shlex
    import sys

    from expunge.cli._console import console, print_record, progress_for, quiet_libraries
    from expunge.core.output_dir import check_absent
    from expunge.core.toml import read_toml

    read_toml(pool)  # refused before torch is imported

    from expunge.evaluate.pool import load_pool
    from expunge.reports.section import print_section
    from expunge.workflows.meta_eval import RECORD, meta_evaluate, write_meta

    found = load_pool(pool)
    if out is not None:
        check_absent(out / RECORD)
    quiet_libraries()
    command = shlex.join(["expunge", *sys.argv[1:]])
    record = meta_evaluate(found, str(pool), command=command, progress=progress_for(quiet))
    path = write_meta(record, out) if out is not None else None
    if as_json:
        print_record(record)
        return
    print_section(record.finding, console(), most_rows=len(record.metrics))
    if path is not None:
        console().paths(record=path)
