"""`expunge import-ou`: OpenUnlearning's evaluation of a retrained model as a reference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli._options import AsJson
from expunge.cli._out import out_path


def import_ou(
    file: Annotated[Path, typer.Argument(help="TOFU_EVAL.json or MUSE_EVAL.json of the retrained model.")],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=out_path,
            metavar="PATH",
            help="File of the reference. Default: NAME.reference.json in the folder of the log.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import a retrained model's scores from OpenUnlearning.

    Checks OpenUnlearning's log and writes the file that `expunge eval --reference FILE` compares with.
    """
    from expunge.cli._console import console, print_json, print_rows
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_file, write_result
    from expunge.evaluate.reference import SUFFIX, import_openunlearning
    from expunge.reports.formats import number

    target = out or file.with_suffix(".reference.json")
    if target.suffix != SUFFIX:
        raise UserError(f"--out {target}: a reference's name ends in {SUFFIX}")
    check_file(target)
    if target.exists():
        raise UserError(f"--out {target}: is there already; nothing is overwritten")
    found = import_openunlearning(file)
    write_result(target, found.model_dump_json())
    held = [(role, metric, numbers) for role, some in found.values.items() for metric, numbers in some.items()]
    if as_json:
        rows = [
            {"metric": metric, "role": role, "rows": len(numbers), "mean": _mean(numbers)}
            for role, metric, numbers in held
        ]
        print_json({"reference": str(target), "values": rows})
        return
    listed = []
    for role, metric, numbers in held:
        mean = _mean(numbers)
        told = "" if mean is None else number(mean)
        listed.append({"name": metric, "role": role, "rows": len(numbers), "mean": told})
    print_rows(listed, as_json=False)
    console().paths(reference=target)


def _mean(numbers: list[float | None]) -> float | None:
    known = [one for one in numbers if one is not None]
    return sum(known) / len(known) if known else None
