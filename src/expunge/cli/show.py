"""`expunge show recipe|diagnostic|attack NAME`: every option of it, with its text and default."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from expunge.cli._help import CommandList
from expunge.cli._options import AsJson

UNSTATED = "this recipe, which does not say where it is from"
"""Of a value whose source stands nowhere; no shipped recipe has one."""

app = typer.Typer(cls=CommandList, help="Show every option of a recipe, attack or diagnostic.", no_args_is_help=True)


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="Recipe (`expunge list recipes`) or TOML file.")],
    as_json: AsJson = False,
) -> None:
    """Every option that a run with this recipe has: its value, where the value is from, and what it means."""
    from expunge.cli._console import console
    from expunge.config import load_run
    from expunge.core.catalog import RECIPES
    from expunge.core.catalog import recipe as read_recipe
    from expunge.core.plugin_options import described
    from expunge.core.schema import SLOTS

    tables = read_recipe(name)
    run = load_run(None, {"recipe": name})
    rows: list[dict[str, Any]] = []
    for slot in SLOTS:
        filler = getattr(run, slot)
        summary, options = described(slot, filler.name)
        rows.append({"name": slot, "value": filler.name, "meaning": summary})
        rows += _fields(slot, options, filler.options)
    rows += _metric_options(run.evaluate.options)
    for table in ("train", "guard", "diagnose", "model", "evaluate", "attacks", "report"):
        section = getattr(run, table)
        rows += _fields(table, type(section), section.model_dump(mode="json"))
    documents = {key: getattr(run.data, key) for key in ("chunk_tokens", "max_tokens")}
    rows += [row for row in _fields("data", type(run.data), documents) if row["name"].rpartition(".")[2] in documents]
    ours = read_recipe(str(RECIPES / "_ours.toml"))["sources"]
    rows = [{**row, "source": _source(row["name"], tables, ours)} for row in rows]
    if not as_json:
        console().prose(f"{name}: {tables.get('summary', '')} ({tables.get('paper', 'no paper')})", style="bold")
    _print(rows, as_json)


@app.command()
def diagnostic(
    name: Annotated[str, typer.Argument(help="Diagnostic; see `expunge list diagnostics`.")],
    as_json: AsJson = False,
) -> None:
    """Every option of a diagnostic: its default, and what it means."""
    _show_options("diagnose", name, name, as_json)


@app.command()
def attack(
    name: Annotated[str, typer.Argument(help="Attack; see `expunge list attacks`.")],
    as_json: AsJson = False,
) -> None:
    """Every option of an attack: its default, and what it means."""
    _show_options("attacks", name, f"attacks.{name}", as_json)


def _show_options(folder: str, name: str, table: str, as_json: bool) -> None:
    """Every option of a plug-in, with its default."""
    from expunge.core.plugin_options import options_class

    options = options_class(folder, name)
    _print(_fields(table, options, options().model_dump(mode="json")), as_json)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    """A table for each table of options, whose name is said once above it."""
    from expunge.cli._console import console, print_json

    if as_json:
        print_json(rows)
        return
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row["name"].rpartition(".")[0] or row["name"], []).append(row)
    for table, some in tables.items():
        filler = [row for row in some if row["name"] == table]
        title = "".join(f" = {row['value']}: {row['meaning']}" for row in filler)
        more = ["source"] if "source" in some[0] else []
        cells = [
            [row["name"].rpartition(".")[2], _value(row["value"]), *(row[key] for key in more), row["meaning"] or ""]
            for row in some
            if row not in filler
        ]
        if cells:
            console().table(["option", "value", *more, "meaning"], cells, title=f"{table}{title}")
        else:
            console().print(f"\n{table}{title}", style="bold")


def _value(value: Any) -> str:
    """As it is written in a run file; `-` for none."""
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _metric_options(given: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    from expunge.core.plugin_options import options_class
    from expunge.core.plugins import names

    rows: list[dict[str, Any]] = []
    for folder in ("evaluate/metrics", "evaluate/set_metrics"):
        for name in names(folder):
            options = options_class(folder, name)
            values = options(**given.get(name, {})).model_dump(mode="json")
            rows += _fields(f"evaluate.options.{name}", options, values)
    return rows


def _source(option: str, recipe: dict[str, Any], ours: dict[str, str]) -> str:
    """Where the value of an option is from: what the recipe says of it or of its table, or else of our defaults."""
    stated, (table, _, key) = recipe.get("sources", {}), option.partition(".")
    if found := stated.get(option) or stated.get(table):
        return str(found)
    own = recipe.get(table)
    if (isinstance(own, dict) and key in own) or (own and not key):
        return UNSTATED
    return ours.get(option) or ours.get(table) or UNSTATED


def _fields(table: str, kind: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": f"{table}.{key}", "value": values.get(key), "meaning": field.description}
        for key, field in kind.model_fields.items()
    ]
