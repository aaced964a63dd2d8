"""`expunge locate`: which blocks hold the knowledge?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._data import MOST_SEED
from expunge.cli._out import out_path


def locate(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, .gguf file or hub id.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="forget=DATA or retain=DATA, e.g. forget=facts.jsonl; none: the shipped people."),
    ] = None,
    by: Annotated[str, typer.Option(help="How to choose; see `expunge list localize`.")] = "causal_tracing",
    template: Annotated[str, typer.Option(help="chat or plain.")] = "chat",
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of everything random.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any option of the localizer: localize.KEY=VALUE.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=out_path, metavar="PATH", help="Write FILE.json, FILE.html with the curve, or both into a directory."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Show which blocks hold the knowledge.

    Selects blocks as a run would and shows a value for each block. Nothing is trained.
    """
    from expunge.cli._console import console, print_record, progress_for, quiet_libraries
    from expunge.cli._data import named_data
    from expunge.core.errors import UserError
    from expunge.reports.localization import print_located
    from expunge.workflows.locate import DATA, check_target, write_localization
    from expunge.workflows.locate import locate as find

    splits = named_data(data or (), list(DATA)) or DATA
    if template not in ("chat", "plain"):
        raise UserError(f"--template: 'chat' or 'plain', got '{template}'")
    if out is not None:
        check_target(out)
    quiet_libraries()
    found = find(
        model,
        splits,
        by=by,
        seed=seed,
        settings=settings or (),
        model_config={"template": template},
        progress=progress_for(quiet),
    )
    written = write_localization(found, out) if out is not None else []
    if as_json:
        print_record(found)
        return
    print_located(found.selection, console())
    for path in written:
        console().paths(**{path.suffix[1:]: path})
