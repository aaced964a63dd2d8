"""The blocks that a localizer chose, on the terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from expunge.core.records import LayerCurve, SelectionPrint
from expunge.core.report_section import Chart, Mark, ReportSection, Series, Table
from expunge.reports.formats import cell_text, number, numbers_only, sentence_case
from expunge.reports.page import render

if TYPE_CHECKING:
    from expunge.reports.terminal import Cell, Terminal

_BAR = 32
_MARK = "chosen"


def localization_section(selection: SelectionPrint) -> ReportSection:
    """The chosen blocks, and a value for each block."""
    layers = chosen_layers(selection)
    blocks = named_layers(layers) if layers else "no single blocks"
    count = f"{len(selection.names)} parameter{'s' if len(selection.names) > 1 else ''}"
    return ReportSection(
        title="Where the knowledge is",
        sentence=f"{selection.localizer} chose {blocks}: {selection.num_parameters:,} weights in {count}.",
        tables=[_values(curve, layers) for curve in selection.curves],
        charts=[curve_chart(curve, layers) for curve in selection.curves],
    )


def page(selection: SelectionPrint, model: str, sources: Mapping[str, str]) -> str:
    """A self-contained page.

    Args:
        selection: the blocks and weights that were chosen.
        model: as the user named it.
        sources: split name -> where its rows came from.
    """
    section = localization_section(selection)
    evidence = numbers_only(selection.evidence)
    context = {"selection": selection, "model": model, "sources": sources, "evidence": evidence}
    return render("localization.html.j2", section.charts, section=section, **context)


def print_located(selection: SelectionPrint, terminal: Terminal) -> None:
    """Print the sentence, and a bar for each block of each curve."""
    from rich.text import Text

    section = localization_section(selection)
    terminal.prose(f"\n{section.sentence}", style="bold")
    full, space = ("█", " ") if terminal.encoding.startswith("utf") else ("#", " ")
    for curve, table in zip(selection.curves, section.tables, strict=True):
        top = max((*curve.values, 1e-12))
        rows: list[list[Cell]] = []
        for value, row in zip(curve.values, table.rows, strict=True):
            first, *rest = map(cell_text, row)
            bar = (full * round(_BAR * max(0.0, value) / top)).ljust(_BAR, space)
            rows.append([first, Text(bar, style="red" if rest[-1] == _MARK else "blue"), *rest])
        terminal.table([table.columns[0], "", *table.columns[1:]], rows, title=table.caption)


def chosen_layers(selection: SelectionPrint) -> list[int]:
    """The chosen blocks, ascending; none for a localizer that names none."""
    return sorted(int(layer) for layer in selection.evidence.get("layers", ()))


def named_layers(layers: Sequence[int]) -> str:
    """`block 7`, or `blocks 3 to 5 and 9`."""
    parts = [str(start) if start == end else f"{start} to {end}" for start, end in _runs(layers)]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{'block' if len(layers) == 1 else 'blocks'} {text}"


def curve_chart(curve: LayerCurve, layers: Sequence[int]) -> Chart:
    """One value for each block, with an interval or without, and the chosen blocks shaded."""
    blocks = list(range(len(curve.values)))
    peak = max(blocks, key=lambda block: curve.values[block])
    chosen = [f"Chosen: {named_layers(layers)}"] if layers else []
    notes = [*(f"{text} (shaded)." for text in chosen), *(["The band is the 95% interval."] if curve.low else [])]
    bands = [Mark(text="", axis="x", low=start - 0.5, high=end + 0.5) for start, end in _runs(layers)]
    return Chart(
        title=f"{sentence_case(curve.name)} by block",
        caption=" ".join(notes),
        across="block",
        up=curve.name,
        style="band",
        series=[Series(name=curve.name, x=blocks, y=curve.values, low=curve.low, high=curve.high)],
        marks=[*bands, Mark(text="", axis="y", at=0)],
        alt=". ".join([f"{curve.name} is largest in block {peak} ({number(curve.values[peak])})", *chosen]) + ".",
    )


def _values(curve: LayerCurve, layers: Sequence[int]) -> Table:
    """The same as text: block, value, interval if there is one, and whether the block is chosen."""
    ends = [[f"[{low:.4f}, {high:.4f}]"] for low, high in zip(curve.low, curve.high, strict=True)]
    return Table(
        caption=curve.name,
        columns=["block", "value", *(["95% interval"] if curve.low else []), ""],
        rows=[
            [block, f"{value:.4f}", *(ends[block] if ends else []), _MARK if block in layers else ""]
            for block, value in enumerate(curve.values)
        ],
    )


def _runs(layers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of neighbours, ascending."""
    ordered = sorted(layers)
    start = 0
    for place in range(1, len(ordered) + 1):
        if place == len(ordered) or ordered[place] != ordered[place - 1] + 1:
            yield ordered[start], ordered[place - 1]
            start = place
