"""`expunge show recipe|diagnostic|attack NAME`: every option of it, with its text and default."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(help="Show everything about one thing.", no_args_is_help=True)


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="Name of a recipe, or path of a recipe file.")],
    as_json: Annotated[bool, typer.Option("--json", help="An array of objects.")] = False,
) -> None:
    """Every option that a run with this recipe has: its value, and what it means."""
    from expunge.cli._console import console, print_rows
    from expunge.config import SLOTS, load_run, read_recipe
    from expunge.core import plugins

    tables = read_recipe(name)
    run = load_run(None, {"recipe": name})
    rows: list[dict[str, Any]] = []
    for slot, base in SLOTS.items():
        filler = getattr(run, slot)
        kind = plugins.find(slot, filler.name, base)
        rows.append({"name": slot, "value": filler.name, "meaning": (kind.__doc__ or "").split("\n", 1)[0]})
        rows += _fields(slot, kind.Config, filler.options)
    rows += _metric_options(run.evaluate.options)
    for table in ("train", "guard", "diagnose", "model", "evaluate", "attacks", "report"):
        section = getattr(run, table)
        rows += _fields(table, type(section), section.model_dump(mode="json"))
    if not as_json:
        console().print(f"[bold]{name}[/bold]: {tables.get('summary', '')} ({tables.get('paper', 'no paper')})\n")
    print_rows(rows, as_json)


@app.command()
def diagnostic(
    name: Annotated[str, typer.Argument(help="Name of a diagnostic; see `expunge diagnose`.")],
    as_json: Annotated[bool, typer.Option("--json", help="An array of objects.")] = False,
) -> None:
    """Every option of a diagnostic: its default, and what it means."""
    from expunge.cli._console import print_rows
    from expunge.core import plugins
    from expunge.diagnose.base import Diagnostic

    kind = plugins.find("diagnose", name, Diagnostic)  # type: ignore[type-abstract]
    print_rows(_fields(name, kind.Config, kind.Config().model_dump(mode="json")), as_json)


@app.command()
def attack(
    name: Annotated[str, typer.Argument(help="Name of an attack; see `expunge attacks`.")],
    as_json: Annotated[bool, typer.Option("--json", help="An array of objects.")] = False,
) -> None:
    """Every option of an attack: its default, and what it means."""
    from expunge.attacks.base import Attack
    from expunge.cli._console import print_rows
    from expunge.core import plugins

    kind = plugins.find("attacks", name, Attack)  # type: ignore[type-abstract]
    print_rows(_fields(f"attacks.{name}", kind.Config, kind.Config().model_dump(mode="json")), as_json)


def _metric_options(given: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    from expunge.core import plugins
    from expunge.evaluate.base import Metric, SetMetric
    from expunge.evaluate.score import FOLDER, SET_FOLDER

    kinds: dict[str, Any] = {name: plugins.find(FOLDER, name, Metric) for name in plugins.names(FOLDER)}
    kinds |= {name: plugins.find(SET_FOLDER, name, SetMetric) for name in plugins.names(SET_FOLDER)}  # type: ignore[type-abstract]
    rows: list[dict[str, Any]] = []
    for name, kind in kinds.items():
        values = kind.Config(**given.get(name, {})).model_dump(mode="json")
        rows += _fields(f"evaluate.options.{name}", kind.Config, values)
    return rows


def _fields(table: str, kind: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": f"{table}.{key}", "value": values.get(key), "meaning": field.description}
        for key, field in kind.model_fields.items()
    ]
