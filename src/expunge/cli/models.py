"""`expunge models`: embedded models, and `expunge models pull NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

from expunge.cli._help import CommandList

app = typer.Typer(cls=CommandList, help="Embedded models.", invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="An array of objects.")]


@app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the embedded models."""
    if context.invoked_subcommand is None:
        from expunge.cli._console import print_rows
        from expunge.models.pull import embedded

        rows = [
            {"name": name, **spec.model_dump(include={"kind", "summary", "paper"})} for name, spec in embedded().items()
        ]
        print_rows(rows, as_json)


@app.command()
def pull(name: Annotated[str, typer.Argument(help="Name of an embedded model.")]) -> None:
    """Fetch an embedded model into the cache, unless it is there."""
    from expunge.cli._console import DrawnProgress, console, quiet_libraries
    from expunge.models.pull import pull as fetch

    quiet_libraries()
    console().print(str(fetch(name, DrawnProgress())), soft_wrap=True)
