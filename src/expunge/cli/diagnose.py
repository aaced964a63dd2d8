"""`expunge diagnose NAME`: what hidden states tell of a model or a run; `squeeze` watches a run while it trains."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.cli._help import CommandList
from expunge.cli._options import (
    AsJson,
    Forget,
    ModelName,
    Neighbour,
    Quiet,
    Retain,
    RunSeed,
    RunSettings,
    RunTemplate,
    Target,
)
from expunge.cli._out import out_path
from expunge.cli._permission import permitted
from expunge.cli.run import runner
from expunge.core.plugins import ROOT, listing
from expunge.core.toml import read_toml

if TYPE_CHECKING:
    from expunge.core.report_section import Diagnosis

app = typer.Typer(cls=CommandList, help="Examine the hidden states of a model or a run.", no_args_is_help=True)


@app.callback()
def diagnose() -> None:
    """Examine the hidden states of a model or a run."""


app.command(
    "squeeze",
    help="Run, and tell whether other wordings of the forgotten rise while the forget answers fall. "
    "Options of the diagnostic: --set diagnose.squeeze.prompts=8; see `expunge show recipe`.",
)(permitted(runner(diagnose={"squeeze": {}})))


def _looker(name: str) -> Callable[..., None]:
    """The command of one diagnostic."""

    def command(
        subject: Target,
        data: Annotated[
            list[str] | None,
            typer.Option(
                metavar="SPLIT=DATA",
                help="For forget or retain. Default: the run's splits, or the bundled demo people for a model.",
            ),
        ] = None,
        settings: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Option of `expunge show diagnostic NAME`."),
        ] = None,
        template: RunTemplate = None,
        seed: RunSeed = None,
        out: Annotated[
            Path | None, typer.Option(parser=out_path, metavar="PATH", help="Folder of the record and the report.")
        ] = None,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        from expunge.cli._console import progress_for, quiet_libraries
        from expunge.cli._data import named_data
        from expunge.cli._early import check_named_data, check_target
        from expunge.config import read_settings
        from expunge.core.output_dir import check_folder, new_name
        from expunge.core.plugin_options import options_class
        from expunge.core.validation import check

        if out is not None:
            check_folder(out)
        splits = named_data(data or (), ("forget", "retain"))
        check(options_class("diagnose", name), read_settings(settings or ()), name)
        check_target(subject, "original")
        check_named_data(splits)

        from expunge.workflows.diagnose import check_free, default_folder
        from expunge.workflows.diagnose import diagnose as look

        folder = out or default_folder(subject) or Path("diagnose") / new_name("")
        check_free(folder, name)
        quiet_libraries()
        found = look(
            name,
            subject,
            read_settings(settings or ()),
            splits,
            seed=seed,
            template=template,
            command=shlex.join(["expunge", *sys.argv[1:]]),
            progress=progress_for(quiet),
        )
        _show(found, folder, as_json)

    return command


def _show(found: Diagnosis, folder: Path, as_json: bool) -> None:
    """Write the record and the page, and print what was found."""
    from expunge.cli._console import console, print_record
    from expunge.reports.section import print_section
    from expunge.workflows.diagnose import write

    record, page = write(found, folder)
    if as_json:
        print_record(found)
        return
    print_section(found.finding, console())
    console().paths(report=page, record=record)


def _sweeper(name: str) -> Callable[..., None]:
    """The command of one sweep."""

    def command(
        file: Annotated[Path | None, typer.Argument(help="TOML file of a run. Default: the bundled demo.")] = None,
        model: ModelName = None,
        forget: Forget = None,
        retain: Retain = None,
        neighbour: Neighbour = None,
        settings: RunSettings = None,
        out: Annotated[
            Path | None,
            typer.Option(parser=out_path, metavar="PATH", help="Folder; a second call continues there."),
        ] = None,
        as_json: AsJson = False,
        quiet: Quiet = False,
    ) -> None:
        from expunge.cli._console import progress_for, quiet_libraries
        from expunge.core.output_dir import check_folder
        from expunge.workflows.sweep import execute_sweep

        data = {"forget": forget, "retain": retain, "neighbour": neighbour}
        given: dict[str, Any] = {"data": {split: value for split, value in data.items() if value is not None}}
        if model is not None:
            given["model"] = {"name": model}
        folder = out or Path("diagnose") / name
        check_folder(folder)
        quiet_libraries()
        said = shlex.join(["expunge", *sys.argv[1:]])
        found = execute_sweep(name, folder, file, given, settings or (), said, progress_for(quiet))
        _show(found, folder, as_json)

    return command


for _path in sorted((ROOT / "sweeps").glob("*.toml")):
    app.command(_path.stem, help=f"{read_toml(_path)['summary']}: a run at each value.")(
        permitted(_sweeper(_path.stem))
    )
for _line in listing("diagnose"):
    app.command(_line.name, help=f"{_line.summary} {_line.paper}".strip())(permitted(_looker(_line.name)))
