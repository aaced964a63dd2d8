"""`expunge list [KIND]`: what there is to choose from, one line each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer

from expunge.cli._options import AsJson

Rows = list[dict[str, Any]]


class Kind(NamedTuple):
    """Something that can be listed."""

    summary: str
    rows: Callable[[], Rows]
    """One object a thing, with at least `name` and `summary`."""
    hidden: tuple[str, ...] = ()
    """Keys of the objects that only `--json` shows."""


def _plugins(folder: str) -> Rows:
    from expunge.core.plugins import listing

    return [item._asdict() for item in listing(folder)]


def _catalog(name: str) -> Rows:
    from expunge.core import catalog

    rows: Rows = getattr(catalog, name)()
    return rows


def _models() -> Rows:
    from expunge.models.pull import embedded

    shown = {"kind", "summary", "paper"}
    return [{"name": name, **spec.model_dump(include=shown)} for name, spec in embedded().items()]


KINDS = {
    "recipes": Kind("Named methods", partial(_catalog, "recipes"), ("forget", "retain", "combine", "localize", "edit")),
    "forget": Kind("Losses that remove knowledge", partial(_plugins, "forget")),
    "retain": Kind("Losses that preserve all other knowledge", partial(_plugins, "retain")),
    "combine": Kind("Rules that turn two gradients into one step", partial(_plugins, "combine")),
    "localize": Kind("Ways to choose the weights to train", partial(_plugins, "localize")),
    "edits": Kind("Weight changes before training, or instead of it", partial(_plugins, "edit")),
    "optimizers": Kind("Optimizers besides those of transformers", partial(_plugins, "optimizers")),
    "metrics": Kind("Scores of single rows", partial(_plugins, "evaluate/metrics")),
    "set-metrics": Kind("Scores of many rows together", partial(_plugins, "evaluate/set_metrics")),
    "whitebox": Kind("Measures that read hidden states and weights", partial(_plugins, "evaluate/whitebox")),
    "diagnostics": Kind("Diagnostics of hidden states, for `expunge diagnose`", partial(_plugins, "diagnose")),
    "attacks": Kind("Ways to recover the knowledge", partial(_plugins, "attacks")),
    "suites": Kind("Benchmarks, for `expunge eval --suite`", partial(_catalog, "suites")),
    "reproductions": Kind("Claims of papers, for `expunge reproduce`", partial(_catalog, "reproductions")),
    "data": Kind("Data sets that need no download, and published ones", partial(_plugins, "data/sources")),
    "models": Kind("Models that `expunge models pull` fetches", _models),
}
"""What can be listed, in the order of a run."""
_NEW = ("whitebox", "diagnostics", "data", "models")
OLD = {name: name for name in KINDS if name not in _NEW} | {"depth": "whitebox"}
"""Listing command of version 0.1 -> kind."""


def list_kind(
    kind: Annotated[
        str | None, typer.Argument(help=f"One of: {', '.join(KINDS)}. Default: an overview of these.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List recipes, metrics, attacks and everything else by name."""
    from expunge.cli._console import print_rows
    from expunge.core.errors import UserError, near

    if kind is None:
        rows = [{"name": name, "count": len(one.rows()), "summary": one.summary} for name, one in KINDS.items()]
        print_rows(rows, as_json)
    elif kind not in KINDS:
        raise UserError(f"list: no '{kind}'{near(kind, KINDS)}")
    else:
        print_kind(KINDS[kind], as_json)


def print_kind(kind: Kind, as_json: bool) -> None:
    """A table for people, an array of objects for programs."""
    from expunge.cli._console import print_rows

    hidden = () if as_json else kind.hidden
    print_rows([{key: row[key] for key in row if key not in hidden} for row in kind.rows()], as_json)


def add_old_names(app: typer.Typer) -> None:
    """Keep the listing commands of version 0.1 for one release: hidden from the help, and with a note."""
    for name, kind in OLD.items():
        app.command(name, help=f"Old name of `expunge list {kind}`.", hidden=True)(_old(name, kind))


def _old(name: str, kind: str) -> Callable[[bool], None]:
    def command(as_json: AsJson = False) -> None:
        print(f"expunge: `expunge {name}` is deprecated; use `expunge list {kind}`", file=sys.stderr)
        print_kind(KINDS[kind], as_json)

    return command
