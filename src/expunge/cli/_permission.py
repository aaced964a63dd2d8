"""`--trust` and `--allow-endpoint`: options of every command that reads files which somebody else may have written."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer

from expunge.core.printable import one_line

_NAMES = ("which", "by", "whitebox", "depth", "metrics")
"""Parameters of commands that hold names of plug-ins, with commas between them."""
_TRUST = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Accept code, endpoints and loggers that the named files or directories ask for, and list them; such code "
        "runs as you. Without it only what is typed here is accepted.",
    ),
]
_ENDPOINT = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST",
        help="HOST or HOST:PORT of a judge that a file names, which may receive questions and answers of your rows.",
    ),
]


def permitted(command: Callable[..., None]) -> Callable[..., None]:
    """The command with both options; it runs with what its user typed, and what these two add."""
    own = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (("trust", False, _TRUST), ("allow_endpoint", None, _ENDPOINT))
    ]
    has_tables = "settings" in own.parameters

    @wraps(command)
    def run(*, trust: bool, allow_endpoint: list[str] | None, **values: Any) -> None:
        from expunge.config import read_settings
        from expunge.core.permission import granted

        tables = read_settings(values["settings"] or ()) if has_tables else {}
        names, endpoints = _names(values), allow_endpoint or ()
        with granted(tables, classes=names, endpoints=endpoints, everything=trust, tell=_tell):
            command(**values)

    parameters = [*own.parameters.values(), *more]
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _names(values: Mapping[str, Any]) -> Iterable[str]:
    for key in _NAMES:
        value = values.get(key) or ()
        for text in [value] if isinstance(value, str) else value:
            yield from (name.strip() for name in text.split(","))


def _tell(text: str) -> None:
    """One line on standard error: names come from files."""
    print(one_line(text), file=sys.stderr)
