"""`expunge attack`: try to get the knowledge back, and show what survived."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._data import MOST_SEED
from expunge.cli._out import out_path, resumable


def attack(
    subject: Annotated[str, typer.Argument(metavar="RUN_DIR|MODEL", help="A finished run, or a model's name.")],
    which: Annotated[
        str,
        typer.Option("--attack", help="Comma-separated names (`expunge list attacks`), default or all."),
    ] = "default",
    data: Annotated[
        list[str] | None,
        typer.Option(help="SPLIT=DATA, e.g. forget=facts.jsonl. None: the run's own; of a model: the shipped people."),
    ] = None,
    original: Annotated[
        str | None, typer.Option(help="Model before unlearning: what can be recovered at most. None: the run's own.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Model that never saw the forget rows: attacked too, as a control.")
    ] = None,
    refusal: Annotated[
        str | None, typer.Option(help="Model that was only taught to refuse: attacked too, as a control.")
    ] = None,
    access: Annotated[str, typer.Option(help="What the adversary has: prompts, logits or weights.")] = "weights",
    budget: Annotated[float | None, typer.Option(help="Seconds for all attacks. None: no limit.")] = None,
    template: Annotated[str | None, typer.Option(help="chat or plain. None: the run's own, or chat.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MOST_SEED, help="Of what is drawn. None: the run's own, or 0.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="attacks.NAME.KEY=VALUE, attacks.max_rows=N or evaluate.KEY=VALUE."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=out_path, metavar="PATH", help="Folder; a second call goes on there. None: the run's, or a new one."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the traceback of an attack that fails.")] = False,
) -> None:
    """Try to recover the knowledge from a run or any model.

    Exit code 1: an attack broke off by an unexpected error; the card is complete apart from it. A run directory from
    somebody else can neither run code nor send rows anywhere (SECURITY.md).
    """
    from expunge.cli._console import console, print_record, progress_for, quiet_libraries
    from expunge.cli._data import named_data
    from expunge.cli._failures import check_attacks
    from expunge.config import read_settings
    from expunge.core.errors import UserError
    from expunge.core.output_dir import new_name
    from expunge.core.schema import SPLITS
    from expunge.reports.robustness import robustness_section
    from expunge.reports.section import print_section
    from expunge.targets import is_run
    from expunge.workflows.attack import attack_target, broken, show

    tables = read_settings(settings or ())
    if unknown := sorted(set(tables) - {"attacks", "evaluate"}):
        raise UserError(f"--set: only options of 'attacks' and 'evaluate' can be set here, got '{unknown[0]}'")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UserError(f"--set: '{name}' is a table of options, got {table!r}")
    if out is None and not is_run(Path(subject)):
        out = Path("attacks") / new_name("")
    quiet_libraries()
    with resumable(out):
        record, path = attack_target(
            subject,
            which,
            options=tables.get("attacks"),
            evaluate=tables.get("evaluate"),
            data=named_data(data or (), SPLITS),
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
        print_section(robustness_section(record.robustness, record.warnings), console())
        console().paths(report=page, record=path)
    check_attacks(broken(record.robustness, which), path, verbose)
