"""`expunge attack`: try to get the knowledge back, and show what survived."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson, Quiet, RunSeed, RunTemplate, Target, Verbose
from expunge.cli._out import out_path, resumable


def attack(
    subject: Target,
    which: Annotated[
        str,
        typer.Option("--attack", help="Comma-separated names (`expunge list attacks`), default or all."),
    ] = "default",
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPLIT=DATA",
            help="E.g. forget=facts.jsonl. Default: the run's splits, or the bundled demo people for a model.",
        ),
    ] = None,
    original: Annotated[
        str | None,
        typer.Option(help="Model before unlearning: the upper bound of recovery. Default: the run's original."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Control: model that never saw the forget rows; attacked too.")
    ] = None,
    refusal: Annotated[
        str | None, typer.Option(help="Control: model that was only taught to refuse; attacked too.")
    ] = None,
    access: Annotated[str, typer.Option(help="The adversary's access: prompts, logits or weights.")] = "weights",
    budget: Annotated[float | None, typer.Option(help="Seconds for all attacks. Default: no limit.")] = None,
    template: RunTemplate = None,
    seed: RunSeed = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="attacks.NAME.KEY=VALUE, attacks.max_rows=N or evaluate.KEY=VALUE."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=out_path,
            metavar="PATH",
            help="Folder of the record; a second call adds to it. Default: the run's directory, or a new folder.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Try to recover the knowledge from a run or any model.

    Exit code 1: an attack broke off by an unexpected error; the card is complete apart from it. A run directory from
    somebody else can neither run code nor send rows anywhere (SECURITY.md).
    """
    from expunge.attacks.config import AttackConfig
    from expunge.cli import _early
    from expunge.cli._console import console, print_record, progress_for, quiet_libraries
    from expunge.cli._data import named_data
    from expunge.cli._failures import check_attacks
    from expunge.config import read_settings
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_folder, new_name
    from expunge.core.records import is_run
    from expunge.core.schema import SPLITS
    from expunge.core.validation import check

    tables = read_settings(settings or ())
    if unknown := sorted(set(tables) - {"attacks", "evaluate"}):
        raise UserError(f"--set: only options of 'attacks' and 'evaluate' can be set here, got '{unknown[0]}'")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"--set: '{name}' is a table of options, got {table!r}")
    if out is None and not is_run(Path(subject)):
        out = Path("attacks") / new_name("")
    splits = named_data(data or (), SPLITS)
    names = [] if which in ("default", "all") else [name.strip() for name in which.split(",") if name.strip()]
    _early.check_attacks(names, check(AttackConfig, tables.get("attacks", {}), "attacks").options)
    check_folder(out or Path(subject))
    _early.check_target(subject, "unlearned")
    _early.check_named_data(splits)

    from expunge.reports.robustness import robustness_section, shortened
    from expunge.reports.section import print_section
    from expunge.workflows.attack import attack_target, broken, show

    quiet_libraries()
    with resumable(out):
        record, path = attack_target(
            subject,
            which,
            options=tables.get("attacks"),
            evaluate=tables.get("evaluate"),
            data=splits,
            original=original,
            reference=reference,
            refusal=refusal,
            access=access,
            budget=budget,
            seed=seed,
            template=template,
            out=out,
            command=shlex.join(["expunge", *sys.argv[1:]]),
            progress=progress_for(quiet),
        )
    page = show(record, path)
    if as_json:
        print_record(record)
    else:
        section = robustness_section(record.robustness, record.warnings)
        print_section(section if verbose else shortened(section), console())
        console().paths(report=page, record=path)
    check_attacks(broken(record.robustness, which), path, verbose)
