"""Puts the commands together; each lives in its own file and imports what is heavy only when it runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from expunge.cli import (
    attack,
    cache,
    compare,
    continual,
    data,
    diagnose,
    evaluate,
    import_ou,
    listing,
    locate,
    meta_eval,
    models,
    report,
    reproduce,
    run,
    show,
    teach,
)
from expunge.cli._permission import permitted
from expunge.core.errors import ExpungeError, UserError

app = typer.Typer(
    name="expunge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Removes chosen knowledge from a language model, and shows whether it is really gone.",
)
app.command(
    "run",
    help="Load, localize, unlearn, measure before and after, record, report. A run file from somebody else can neither "
    "run code nor send rows anywhere unless you allow it here (SECURITY.md).",
)(permitted(run.runner()))
app.command("continual")(permitted(continual.continual))
app.command("teach")(permitted(teach.teach))
app.command("reproduce")(permitted(reproduce.reproduce))
app.command("eval")(permitted(evaluate.evaluate))
app.command("compare")(permitted(compare.compare))
app.command("import-ou")(import_ou.import_ou)
app.command("meta-eval")(permitted(meta_eval.meta_eval))
app.command("data")(data.data)
app.command("locate")(permitted(locate.locate))
app.command("cache")(cache.cache)
app.command("attack")(permitted(attack.attack))
app.command("report")(report.report)
app.add_typer(diagnose.app, name="diagnose")
app.add_typer(models.app, name="models")
app.add_typer(show.app, name="show")
listing.add_to(app)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Removes chosen knowledge from a language model, and shows whether it is really gone."""


def main() -> None:
    """Entry point: 0 done, 1 failed, 2 the user's mistake; no traceback for either."""
    if "--version" in sys.argv[1:2]:
        from expunge.core.provenance import version

        print(version())
        return
    try:
        app()
    except UserError as error:
        _fail(error, 2)
    except ExpungeError as error:
        _fail(error, 1)


def _fail(error: ExpungeError, code: int) -> None:
    print(f"expunge: {error}", file=sys.stderr)
    sys.exit(code)
