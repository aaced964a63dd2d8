"""`expunge teach`: fine-tune a model on given data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._out import out_path, resumable


def teach(
    file: Annotated[Path, typer.Argument(help="TOML file: [model], [data] teach = [...], [train].")],
    out: Annotated[
        Path | None,
        typer.Option(parser=out_path, metavar="PATH", help="Folder of the result; none: taught/HASH, found again."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Fine-tune a model on facts, to unlearn them or as a reference.

    The result knows facts that a run then unlearns, or serves as the reference that never saw the forget rows.
    """
    from expunge.cli._console import console, print_json, progress_for, quiet_libraries
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
