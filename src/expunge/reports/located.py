"""What a localizer found, on the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from expunge.core.records import LayerCurve, SelectionPrint
from expunge.reports.blocks import chosen_layers, curve_picture, named_layers
from expunge.reports.html import environment, plotly_script
from expunge.reports.squeeze import Table
from expunge.reports.words import numbers_only

if TYPE_CHECKING:
    from rich.console import Console

TEMPLATE = "located.html.j2"
_BAR = 32
_MARK = "chosen"


def sentence(selection: SelectionPrint) -> str:
    """What was chosen, and how much of it may move."""
    layers = chosen_layers(selection)
    what = named_layers(layers) if layers else "no single blocks"
    count = f"{len(selection.names)} parameter{'s' if len(selection.names) > 1 else ''}"
    return f"{selection.localizer} chose {what}: {selection.num_parameters:,} weights in {count}."


def print_located(selection: SelectionPrint, console: Console) -> None:
    """Print the sentence, and a bar for each block of each curve."""
    from rich import box
    from rich.bar import Bar
    from rich.table import Table as Drawn

    console.print(f"\n{sentence(selection)}", style="bold", markup=False, highlight=False)
    for curve in selection.curves:
        drawn = Drawn(title=curve.name, title_justify="left", pad_edge=False, box=box.SIMPLE_HEAD, header_style="bold")
        table = values(curve, chosen_layers(selection))
        drawn.add_column(table.headings[0], justify="right")
        drawn.add_column("", width=_BAR)
        for heading in table.headings[1:]:
            drawn.add_column(heading, no_wrap=True)
        top = max((*curve.values, 1e-12))
        for row, value in zip(table.rows, curve.values, strict=True):
            colour = "red" if row[-1] == _MARK else "blue"
            drawn.add_row(row[0], Bar(top, 0, max(0.0, value), width=_BAR, color=colour), *row[1:])
        console.print(drawn)


def values(curve: LayerCurve, layers: list[int]) -> Table:
    """The same as text: block, value, interval if there is one, and whether it is chosen."""
    ends = [[f"[{low:.4f}, {high:.4f}]"] for low, high in zip(curve.low, curve.high, strict=True)]
    return Table(
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
