"""`expunge data`: what is shipped, or how a file, folder or data set is read, without any model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from expunge.cli._options import AsJson


def data(
    name: Annotated[
        str | None,
        typer.Argument(help="File, folder, data set or hub id. Default: list data sets."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Option of the data, e.g. fields.question=q."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a data set is read, or what data sets there are."""
    from expunge.cli._console import console, print_json, print_rows
    from expunge.core.plugins import listing

    if name is None:
        print_rows([item._asdict() for item in listing("data/sources")], as_json)
        return
    from expunge.config import read_settings
    from expunge.core.toml import merge
    from expunge.core.validation import check
    from expunge.data.base import DataSpec, as_table
    from expunge.data.load import load_data

    spec = check(DataSpec, merge(as_table(name), read_settings(settings or ())), "")
    found = [one.as_dict() for one in load_data(spec, "data").understood]
    if as_json:
        print_json(found[0] if len(found) == 1 else found)
        return
    for one in found:
        for key, value in one.items():
            console().print(f"{key:<10}{_shown(value)}", highlight=False, markup=False)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"\n    {key}: {_shown(one)}" for key, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value) or "-"
    return "-" if value is None else repr(value) if value in ("\t", ",", ";", "|") else str(value)
