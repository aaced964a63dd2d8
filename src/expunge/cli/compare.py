"""`expunge compare`: are two runs different, row by row?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from expunge.evaluate.compare import ArmScore, Difference


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Finished runs or their records; the first is what others are compared with. One: its own two stages."
        ),
    ],
    stage: Annotated[str, typer.Option(help="before or after.")] = "after",
    sets: Annotated[list[str] | None, typer.Option("--set", help="Only this set; repeat for more.")] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; repeat for more.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list where no difference is shown.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of resampled rows and swaps.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the comparison to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Set runs against the first over the same rows: difference, interval, p-value, effect size.

    Runs that differ by their seed only count as one, with an interval over seeds. P-values are corrected for the number
    of comparisons (Holm): name fewer sets and metrics for sharper ones.
    """
    from rich.markup import escape

    from expunge.cli._console import console, print_rows
    from expunge.core.errors import UserError
    from expunge.core.files import write_atomic
    from expunge.evaluate.compare import compare as compared

    if stage not in ("before", "after"):
        raise UserError(f"--stage: 'before' or 'after', got '{stage}'")
    found = compared(runs, stage, sets or (), metrics or (), seed)
    if out is not None:
        write_atomic(out, found.model_dump_json(indent=1))
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    out_to = console()
    for number_of_arm, arm in enumerate(found.arms):
        title = "The first arm" if number_of_arm == 0 else f"Arm {number_of_arm + 1} less the first"
        seeds = f", seeds {', '.join(map(str, arm.seeds))}" if len(arm.seeds) > 1 else ""
        run = f" ({escape(arm.recipe)}, {arm.stage}{seeds})" if arm.recipe else ""
        out_to.print(f"\n[bold]{title}[/bold]: {escape(arm.name)}{run}", highlight=False)
        if len(arm.seeds) > 1:
            print_rows([_score_row(score) for score in arm.scores], as_json=False)
        mine = [one for one in found.differences if one.arm == arm.name]
        shown = [one for one in mine if everything or one.shown]
        if shown:
            print_rows([_difference_row(one) for one in shown], as_json=False)
        if len(shown) < len(mine):
            count = f"{len(mine) - len(shown)} of {len(mine)}"
            out_to.print(f"{count} comparisons: no difference shown (--all lists them).", highlight=False)


def _score_row(score: ArmScore) -> dict[str, str]:
    from expunge.reports.words import number

    interval = "" if score.low is None or score.high is None else f" [{number(score.low)}, {number(score.high)}]"
    return {"name": f"{score.set}/{score.metric}", "mean over seeds [95%]": f"{number(score.mean)}{interval}"}


def _difference_row(one: Difference) -> dict[str, str]:
    from expunge.reports.words import number

    return {
        "name": f"{one.set}/{one.metric}",
        "first": number(one.first),
        "here": number(one.second),
        "difference [95%]": f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]",
        "p (Holm)": f"{one.p_holm:.2g}",
        "dz": "" if one.dz is None else f"{one.dz:+.2f}",
        "": one.sentence,
    }
