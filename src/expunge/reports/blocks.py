"""A localizer's value for each block: the picture, with the chosen blocks shaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from expunge.core.records import LayerCurve, SelectionPrint
from expunge.reports.canvas import AFTER, BEFORE, FORGET, Picture, blank, ribbon
from expunge.reports.formats import number


def chosen_layers(selection: SelectionPrint) -> list[int]:
    """The chosen blocks; none where the localizer names none."""
    return sorted(int(layer) for layer in selection.evidence.get("layers", ()))


def named_layers(layers: Sequence[int]) -> str:
    """`block 7`, or `blocks 3 to 5 and 9`."""
    parts = [str(start) if start == end else f"{start} to {end}" for start, end in _runs(layers)]
    text = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{'block' if len(layers) == 1 else 'blocks'} {text}"


def curve_picture(curve: LayerCurve, layers: Sequence[int]) -> Picture:
    """One value for each block.

    Args:
        curve: the values, with an interval or without.
        layers: the chosen blocks.
    """
    figure = blank("block", curve.name)
    blocks = list(range(len(curve.values)))
    if curve.low:
        ribbon(figure, blocks, curve.low, curve.high, AFTER)
    figure.add_scatter(
        x=blocks,
        y=curve.values,
        name=curve.name,
        mode="lines+markers",
        line={"color": AFTER, "width": 2.5},
        marker={"size": 5},
        showlegend=False,
    )
    for start, end in _runs(layers):
        figure.add_vrect(x0=start - 0.5, x1=end + 0.5, fillcolor=FORGET, opacity=0.16, line_width=0, layer="below")
    figure.add_hline(y=0, line={"color": BEFORE, "width": 1})
    figure.update_xaxes(dtick=max(1, len(blocks) // 8), tickformat="d")
    peak = max(blocks, key=lambda block: curve.values[block])
    chosen = f"Chosen: {named_layers(layers)}." if layers else ""
    caption = f"{chosen[:-1]} (shaded)." if chosen else ""
    about: dict[str, Any] = {
        "name": f"blocks-{curve.name}",
        "title": f"{curve.name[:1].upper()}{curve.name[1:]} by block",
    }
    return Picture(
        **about,
        caption=f"{caption} The band is the 95% interval.".strip() if curve.low else caption,
        alt=f"{curve.name} is largest in block {peak} ({number(curve.values[peak])}). {chosen}".strip(),
        figure=figure,
    )


def _runs(layers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of every run of neighbours, ascending."""
    ordered = sorted(layers)
    start = 0
    for place in range(1, len(ordered) + 1):
        if place == len(ordered) or ordered[place] != ordered[place - 1] + 1:
            yield ordered[start], ordered[place - 1]
            start = place
