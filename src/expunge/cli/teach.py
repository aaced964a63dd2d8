"""`expunge teach`: fine-tune a model on given data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson, Quiet
from expunge.cli._out import out_path, resumable


def teach(
    file: Annotated[Path, typer.Argument(help="TOML file: [model], [data] teach = [...], [train].")],
    out: Annotated[
        Path | None,
        typer.Option(parser=out_path, metavar="PATH", help="Folder. Default: taught/HASH, reused by later calls."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on facts, to unlearn them or as a reference.

    The result knows facts that a run then unlearns, or serves as the reference that never saw the forget rows.
    """
    from expunge.cli._console import console, print_json, progress_for, quiet_libraries
    from expunge.core.toml import read_toml

    read_toml(file)  # refused before torch is imported

    from expunge.workflows.teach import execute_teach, load_teach

    plan = load_teach(file)
    quiet_libraries()
    with resumable():
        taught = execute_teach(plan, out, progress_for(quiet))
    if as_json:
        print_json({"folder": str(taught.folder), "cached": taught.cached, **taught.record.model_dump()})
        return
    again = " (made by an earlier call)" if taught.cached else ""
    console().paths(model=f"{taught.folder / 'model'}{again}")
    console().print(f"{taught.record.rows} rows, last loss {taught.record.final_loss:.4f}")
