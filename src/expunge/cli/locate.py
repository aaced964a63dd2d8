"""`expunge locate`: which blocks hold the knowledge?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson, Quiet, Seed
from expunge.cli._out import out_path


def locate(
    model: Annotated[str, typer.Argument(help="Embedded name, folder, .gguf file or hub id.")],
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="SPLIT=DATA", help="For forget or retain. Default: the bundled demo people."),
    ] = None,
    by: Annotated[str, typer.Option(help="Localizer; see `expunge list localize`.")] = "causal_tracing",
    template: Annotated[str, typer.Option(help="Prompt format: chat or plain.")] = "chat",
    seed: Seed = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="localize.KEY=VALUE", help="Any option of the localizer.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=out_path, metavar="PATH", help="FILE.json, FILE.html with the curve, or a directory for both."
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show which blocks hold the knowledge.

    Selects blocks as a run would and shows a value for each block. Nothing is trained.
    """
    from expunge.cli._console import console, print_record, progress_for, quiet_libraries
    from expunge.cli._data import named_data
    from expunge.cli._early import check_model, check_named_data
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_file, check_folder
    from expunge.core.plugin_options import options_class

    splits = named_data(data or (), ("forget", "retain"))
    if template not in ("chat", "plain"):
        raise UserError(f"--template: 'chat' or 'plain', got '{template}'")
    if out is not None:
        (check_file if out.suffix in (".json", ".html") else check_folder)(out)
    if ":" not in by:
        options_class("localize", by)
    check_model(model)
    check_named_data(splits)

    from expunge.reports.localization import print_located
    from expunge.workflows.locate import DATA, check_target, write_localization
    from expunge.workflows.locate import locate as find

    if out is not None:
        check_target(out)
    quiet_libraries()
    found = find(
        model,
        splits or DATA,
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
