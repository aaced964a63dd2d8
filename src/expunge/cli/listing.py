"""`expunge recipes|forget|retain|combine|localize|edits|optimizers|metrics`: what there is, a line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

_FOLDERS = {
    "forget": ("forget", "Losses that push knowledge out."),
    "retain": ("retain", "Losses that hold the rest in place."),
    "combine": ("combine", "Rules that make one step of two gradients."),
    "localize": ("localize", "Choices of the weights that may move."),
    "edits": ("edit", "Changes of the weights before training, or instead of it."),
    "optimizers": ("optimizers", "Optimizers beside those of transformers."),
    "metrics": ("evaluate/metrics", "What is measured."),
    "set-metrics": ("evaluate/set_metrics", "What is measured of many rows at once."),
    "whitebox": ("evaluate/whitebox", "Measures of the hidden states and weights."),
    "depth": ("evaluate/whitebox", "Old name of `whitebox`; will be removed in the next release."),
    "attacks": ("attacks", "Ways to get the knowledge back."),
}

AsJson = Annotated[bool, typer.Option("--json", help="An array of objects.")]


def add_to(app: typer.Typer) -> None:
    """Add one listing command for each folder, and one each for recipes, suites and reproductions."""
    for name, (folder, help_text) in _FOLDERS.items():
        app.command(name, help=help_text)(_lister(folder))
    app.command("recipes", help="Named methods.")(_recipes)
    app.command("suites", help="Benchmarks that `expunge eval --suite` knows.")(_suites)
    app.command("reproductions", help="Papers' claims that `expunge reproduce` examines.")(_reproductions)


def _lister(folder: str) -> Callable[[bool], None]:
    def command(as_json: AsJson = False) -> None:
        from expunge.cli._console import print_rows
        from expunge.core.plugins import listing

        print_rows([item._asdict() for item in listing(folder)], as_json)

    return command


def _recipes(as_json: AsJson = False) -> None:
    from expunge.cli._console import print_rows
    from expunge.core import catalog

    shown = ("name", "summary", "paper")
    rows = catalog.recipes()
    print_rows(rows if as_json else [{key: row[key] for key in shown} for row in rows], as_json)


def _suites(as_json: AsJson = False) -> None:
    from expunge.cli._console import print_rows
    from expunge.core import catalog

    print_rows(catalog.suites(), as_json)


def _reproductions(as_json: AsJson = False) -> None:
    from expunge.cli._console import print_rows
    from expunge.core import catalog

    print_rows(catalog.reproductions(), as_json)
