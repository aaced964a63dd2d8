"""What a localizer found, on the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from expunge.core.records import LayerCurve, SelectionPrint
from expunge.reports.blocks import chosen_layers, curve_picture, named_layers
from expunge.reports.formats import numbers_only
from expunge.reports.page import environment, plotly_script
from expunge.reports.squeeze import TextTable

if TYPE_CHECKING:
    from expunge.reports.terminal import Cell, Terminal

TEMPLATE = "located.html.j2"
_BAR = 32
_MARK = "chosen"


def sentence(selection: SelectionPrint) -> str:
    """What was chosen, and how much of it may move."""
    layers = chosen_layers(selection)
    what = named_layers(layers) if layers else "no single blocks"
    count = f"{len(selection.names)} parameter{'s' if len(selection.names) > 1 else ''}"
    return f"{selection.localizer} chose {what}: {selection.num_parameters:,} weights in {count}."


def print_located(selection: SelectionPrint, terminal: Terminal) -> None:
    """Print the sentence, and a bar for each block of each curve."""
    from rich.text import Text

    terminal.prose(f"\n{sentence(selection)}", style="bold")
    for curve in selection.curves:
        table = values(curve, chosen_layers(selection))
        top = max((*curve.values, 1e-12))
        full, blank = ("█", " ") if terminal.encoding.startswith("utf") else ("#", " ")
        bars = [
            Text(
                (full * round(_BAR * max(0.0, value) / top)).ljust(_BAR, blank),
                style="red" if row[-1] == _MARK else "blue",
            )
            for row, value in zip(table.rows, curve.values, strict=True)
        ]
        rows: list[list[Cell]] = [[row[0], bar, *row[1:]] for row, bar in zip(table.rows, bars, strict=True)]
        terminal.table([table.headings[0], "", *table.headings[1:]], rows, title=curve.name)


def values(curve: LayerCurve, layers: list[int]) -> TextTable:
    """The same as text: block, value, interval if there is one, and whether it is chosen."""
    ends = [[f"[{low:.4f}, {high:.4f}]"] for low, high in zip(curve.low, curve.high, strict=True)]
    return TextTable(
        caption=curve.name,
        headings=["block", "value", *(["95% interval"] if curve.low else []), ""],
        rows=[
            [str(block), f"{value:.4f}", *(ends[block] if ends else []), _MARK if block in layers else ""]
            for block, value in enumerate(curve.values)
        ],
    )


def page(selection: SelectionPrint, model: str, sources: Mapping[str, str]) -> str:
    """A self-contained page.

    Args:
        selection: what was chosen.
        model: as the user named it.
        sources: split name -> where its rows came from.
    """
    from markupsafe import Markup

    pictures = [curve_picture(curve, chosen_layers(selection)) for curve in selection.curves]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            selection=selection,
            model=model,
            sources=sources,
            sentence=sentence(selection),
            pictures=pictures,
            tables=[values(curve, chosen_layers(selection)) for curve in selection.curves],
            evidence=numbers_only(selection.evidence),
            specs={one.name: Markup(one.figure.to_json()) for one in pictures if one.figure is not None},
            plotly=plotly_script() if pictures else "",
        )
    )
