"""`expunge models`: embedded models, and `expunge models pull NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli._help import CommandList
from expunge.cli._options import AsJson
from expunge.cli.listing import KINDS, print_kind

app = typer.Typer(cls=CommandList, help="List the embedded models, or download one.", invoke_without_command=True)


@app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the embedded models, or download one."""
    if context.invoked_subcommand is None:
        print_kind(KINDS["models"], as_json)


@app.command()
def pull(name: Annotated[str, typer.Argument(help="Name of an embedded model.")]) -> None:
    """Fetch an embedded model into the cache, unless it is there."""
    from expunge.cli._console import DrawnProgress, console, quiet_libraries
    from expunge.models.pull import pull as fetch

    quiet_libraries()
    console().print(str(fetch(name, DrawnProgress())), soft_wrap=True)
