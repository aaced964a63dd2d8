"""`expunge compare`: are two runs different, row by row?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.cli._options import AsJson, Seed
from expunge.cli._out import out_path

if TYPE_CHECKING:
    from expunge.evaluate.compare import ArmScore, Comparison, Difference
    from expunge.reports.terminal import Terminal


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Finished runs or their records; the first is the baseline. A single run: before against after."
        ),
    ],
    stage: Annotated[str, typer.Option(help="Stage of the runs: before or after.")] = "after",
    sets: Annotated[list[str] | None, typer.Option("--set", help="Only this set; repeatable.")] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list comparisons without a difference.")] = False,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(parser=out_path, metavar="PATH", help="Write the comparison to this JSON file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs row by row: differences, intervals, p-values.

    Runs that differ by their seed only count as one, with an interval over seeds. P-values are corrected for the number
    of comparisons (Holm): name fewer sets and metrics for sharper ones.
    """
    from expunge.cli._console import console, print_record, print_warnings
    from expunge.core.errors import UserError
    from expunge.core.output_dir import check_file, write_result
    from expunge.evaluate.compare import compare as compared

    if stage not in ("before", "after"):
        raise UserError(f"--stage: 'before' or 'after', got '{stage}'")
    if out is not None:
        check_file(out)
    found = compared(runs, stage, sets or (), metrics or (), seed)
    if out is not None:
        write_result(out, found.model_dump_json(indent=1))
    if as_json:
        print_record(found)
        return
    _print(found, console(), everything)
    print_warnings(found.warnings, console())


def _print(found: Comparison, out: Terminal, everything: bool) -> None:
    """One line for each comparison, set by set."""
    from expunge.reports.metric_texts import metric_title

    doubtful = False
    for place, arm in enumerate(found.arms):
        title = "The first arm" if place == 0 else f"Arm {place + 1} less the first"
        seeds = f", seeds {', '.join(map(str, arm.seeds))}" if len(arm.seeds) > 1 else ""
        run = f" ({arm.recipe}, {arm.stage}{seeds})" if arm.recipe else ""
        out.print(f"\n{title}: {arm.name}{run}", style="bold", soft_wrap=True)
        if len(arm.seeds) > 1:
            rows = [[score.set, metric_title(score.metric), _over_seeds(score)] for score in arm.scores]
            out.table(["set", "metric", "mean over seeds [95%]"], rows, grouped=True)
        mine = [one for one in found.differences if one.arm == arm.name]
        shown = [one for one in mine if everything or one.shown]
        headings = ["set", "metric", "first", "here", "difference [95%]", "p (Holm)", "dz", "here it is"]
        out.table(headings, [_row(one) for one in shown], grouped=True)
        doubtful = doubtful or any(_doubted(one) for one in shown)
        if len(shown) < len(mine):
            out.prose(f"{len(mine) - len(shown)} of {len(mine)} comparisons: no difference shown (--all lists them).")
    if doubtful:
        out.prose("?: not certain among so many comparisons (p, corrected by Holm, is not below 0.05).", style="dim")
    if found.left_out:
        out.prose(f"Without rows in common, so not compared: {', '.join(found.left_out)}.")


def _over_seeds(score: ArmScore) -> str:
    from expunge.reports.formats import number

    interval = "" if score.low is None or score.high is None else f" [{number(score.low)}, {number(score.high)}]"
    return f"{number(score.mean)}{interval}"


def _row(one: Difference) -> list[str]:
    from expunge.reports.formats import number
    from expunge.reports.metric_texts import metric_title

    return [
        one.set,
        metric_title(one.metric),
        number(one.first),
        number(one.second),
        f"{one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}]",
        f"{one.p_holm:.2g}",
        "" if one.dz is None else f"{one.dz:+.2f}",
        _word(one),
    ]


def _word(one: Difference) -> str:
    """Better, worse, or where no direction is wanted higher or lower."""
    if not one.shown:
        return "not shown to differ"
    higher = one.difference > 0
    word = ("higher" if higher else "lower") if one.better == "neither" else "worse"
    if one.better == ("higher" if higher else "lower"):
        word = "better"
    return f"{word}?" if _doubted(one) else word


def _doubted(one: Difference) -> bool:
    from expunge.evaluate.compare import LEVEL

    return one.shown and one.p_holm >= LEVEL
