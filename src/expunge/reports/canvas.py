"""What every picture shares: its colours, its empty axes and the words around it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from pydantic import ConfigDict, Field

from expunge.core.records import Frozen

BEFORE = "#8b95a7"
AFTER = "#3f83e8"
FORGET = "#d9642c"
KEEP = "#249485"
GRID = "rgba(128,128,128,0.22)"
HEIGHT = 380
_LINE = 40
"""Characters of a vertical axis' title in one line; a longer one would be cut off."""


class Picture(Frozen):
    """One figure with the words around it; without a figure, `missing` says why."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str
    title: str
    caption: str
    alt: str = ""
    choices: dict[str, list[bool]] = Field(
        default_factory=dict, description="What a reader may choose to see -> whether each trace is shown"
    )
    figure: go.Figure | None = None
    missing: str = ""


def blank(across: str, up: str) -> go.Figure:
    """An empty figure that is legible on light and dark paper; the page colours its text."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    words = {"xaxis": across, "yaxis": "<br>".join(textwrap.wrap(up, _LINE))}
    # in one piece: plotly checks the whole layout again at each update, which took nine times as long
    layout = {
        "template": "none",
        "height": HEIGHT,
        "autosize": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 44, "b": 12},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": "#1d2430", "font": {"color": "#ffffff"}},
        "dragmode": False,
        **{name: {**axis, "title": {"text": text, "font": {"size": 13}}} for name, text in words.items()},
    }
    return go.Figure(layout=layout)


def errors(colour: str, below: float, above: float) -> dict[str, Any]:
    """One error bar: how far it reaches below and above."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [above],
        "arrayminus": [below],
        "color": colour,
        "thickness": 1.5,
        "width": 5,
    }


def ribbon(
    figure: go.Figure, across: Sequence[float], lows: Sequence[float], highs: Sequence[float], colour: str
) -> None:
    """The intervals of a line as a pale area."""
    figure.add_scatter(
        x=[*across, *reversed(across)],
        y=[*highs, *reversed(lows)],
        fill="toself",
        fillcolor=colour,
        opacity=0.15,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
