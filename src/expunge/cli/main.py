"""Puts the commands together; each lives in its own file and imports what is heavy only when it runs."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

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
from expunge.cli._help import CommandList
from expunge.cli._out import Interrupted
from expunge.cli._permission import permitted
from expunge.core.errors import ExpungeError, UserError
from expunge.core.files import resource_problem
from expunge.core.plugins import ROOT
from expunge.core.printable import one_line

_WRONG_PATH = {
    getattr(errno, name)
    for name in ("ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "EACCES", "EPERM", "EROFS", "ELOOP")
}
"""What the system says of a path that the user should not have named."""
BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended."""
INTERRUPTED = 130
"""The same for SIGINT."""

app = typer.Typer(
    name="expunge",
    cls=CommandList,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is shown as it is written, brackets too
    help="Removes chosen knowledge from a language model, and shows whether it is really gone.",
)
UNLEARN, MEASURE, ATTACK, INSPECT, REFERENCE = "Unlearn", "Measure", "Attack", "Inspect", "Reference"
app.command("run", help=run.HELP, rich_help_panel=UNLEARN)(permitted(run.runner()))
app.command("continual", rich_help_panel=UNLEARN)(permitted(continual.continual))
app.command("teach", rich_help_panel=UNLEARN)(permitted(teach.teach))
app.command("reproduce", rich_help_panel=UNLEARN)(permitted(reproduce.reproduce))
app.command("eval", rich_help_panel=MEASURE)(permitted(evaluate.evaluate))
app.command("compare", rich_help_panel=MEASURE)(permitted(compare.compare))
app.command("meta-eval", rich_help_panel=MEASURE)(permitted(meta_eval.meta_eval))
app.command("import-ou", rich_help_panel=MEASURE)(import_ou.import_ou)
app.command("attack", rich_help_panel=ATTACK)(permitted(attack.attack))
app.command("report", rich_help_panel=INSPECT)(report.report)
app.add_typer(diagnose.app, name="diagnose", rich_help_panel=INSPECT)
app.command("locate", rich_help_panel=INSPECT)(permitted(locate.locate))
app.command("data", rich_help_panel=INSPECT)(data.data)
app.command("list", rich_help_panel=REFERENCE)(listing.list_kind)
app.add_typer(show.app, name="show", rich_help_panel=REFERENCE)
app.add_typer(models.app, name="models", rich_help_panel=REFERENCE)
app.command("cache", rich_help_panel=REFERENCE)(cache.cache)
listing.add_old_names(app)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Removes chosen knowledge from a language model, and shows whether it is really gone."""


def main() -> None:
    """Entry point: 0 done, 1 failed, 2 the user's mistake, 130 interrupted, 141 nobody reads the output.

    Whatever goes wrong is one line on standard error. A bug is too, with the place where it happened; with
    `EXPUNGE_TRACEBACK=1` the whole traceback comes before that line.
    """
    _prepare_streams()
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        code = BROKEN_PIPE
    except OSError as error:  # of the last flush
        _discard_output()
        code = _fail(f"standard output: {error.strerror}", 1)
    if code:
        sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Carry out a command line.

    Raises:
        BrokenPipeError: nobody reads the output.
    """
    if arguments[:1] == ["--version"]:
        from expunge.core.provenance import version

        print(version())
        return 0
    try:
        for argument in arguments:
            if not argument.strip() or re.fullmatch(r"--[\w-]+=\s*", argument):
                name = argument.partition("=")[0].strip() or "an argument"
                raise UserError(f"{name} is empty; give a value or leave it out")
            if not argument.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in argument):
                raise UserError(f"{argument}: not valid UTF-8, so it cannot be recorded; rename it")
        command = get_command(app)
        with command.make_context(app.info.name, list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except Interrupted as error:
        return _fail(error, INTERRUPTED)
    except UserError as error:
        return _fail(error, 2)
    except ExpungeError as error:
        return _fail(error, 1)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _fail("stopped", INTERRUPTED)
    except OSError as error:
        if os.environ.get("EXPUNGE_TRACEBACK"):
            traceback.print_exc()
        place = "standard output" if error.filename is None else error.filename
        return _fail(f"{place}: {error.strerror or error}", 2 if error.errno in _WRONG_PATH else 1)
    except Exception as error:
        if (problem := resource_problem(error)) is not None:
            return _fail(problem, 1)
        if hasattr(error, "format_message"):  # typer's: the command line itself is wrong
            return _wrong_usage(error)
        return _fail(_bug(error), 1)
    return 0


def _wrong_usage(error: Any) -> int:
    """Say what is wrong with the command line and where its help is; without a command, that help itself."""
    message, context = error.format_message(), error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message, file=sys.stderr)
        return 2
    help_of = f"; see {context.command_path} --help" if context is not None else ""
    return _fail(f"{message[:1].lower()}{message[1:].rstrip('.')}{help_of}", 2)


def _bug(error: Exception) -> str:
    """An error that nobody foresaw, with the innermost place in this package."""
    if os.environ.get("EXPUNGE_TRACEBACK"):
        traceback.print_exc()
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if str(ROOT) in frame.filename]
    place = f" ({Path(inside[-1].filename).relative_to(ROOT)}:{inside[-1].lineno})" if inside else ""
    return (
        f"internal error: {type(error).__name__}: {error}{place}; please report it with the traceback, which "
        "EXPUNGE_TRACEBACK=1 shows"
    )


def _fail(error: object, code: int) -> int:
    print(f"expunge: {one_line(str(error))}", file=sys.stderr)
    return code


def _prepare_streams() -> None:
    """Let nothing that is printed fail for its characters, or because a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What is still in the buffers goes nowhere, so that the interpreter's own flush at its end does not fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a file
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
