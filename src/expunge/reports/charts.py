"""Charts of a finding as figures."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import plotly.graph_objects as go

from expunge.core.finding import Chart, Mark, Series
from expunge.reports.canvas import AFTER, BEFORE, FORGET, KEEP, blank

_COLOURS = {"original": BEFORE, "unlearned": AFTER, "forget": FORGET, "retain": KEEP}
_DASHES = ("solid", "dash", "dot", "dashdot")


def draw(chart: Chart) -> go.Figure:
    """The chart's figure."""
    figure = blank(chart.across, chart.up)
    colours = cycle((AFTER, FORGET, KEEP, BEFORE))
    for one in chart.series:
        colour = _COLOURS[one.tone] if one.tone else next(colours)
        _STYLES[chart.style](figure, one, colour)
    for mark in chart.marks:
        _mark(figure, mark)
    if chart.log:
        figure.update_yaxes(type="log", dtick=1)
    return figure


def _line(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_scatter(
        x=one.x,
        y=one.y,
        name=one.name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": _DASHES[one.weight % len(_DASHES)]},
        marker={"size": 5, "color": colour},
        error_y=_reach(one, colour),
    )


def _histogram(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_scatter(
        x=one.x,
        y=one.y,
        name=one.name,
        mode="lines",
        fill="tozeroy",
        line={"color": colour, "width": 2, "shape": "hvh"},
    )


def _bar(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_bar(x=one.x, y=one.y, name=one.name, marker={"color": colour}, error_y=_reach(one, "#5d6778"))


def _box(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_box(
        x=one.x,
        median=one.y,
        q1=one.low,
        q3=one.high,
        lowerfence=one.lowest,
        upperfence=one.highest,
        name=one.name,
        marker={"color": colour},
    )
    figure.update_layout(boxmode="group")


_STYLES = {"line": _line, "histogram": _histogram, "bar": _bar, "box": _box}


def _reach(one: Series, colour: str) -> dict[str, Any] | None:
    """Error bars, where the series has intervals."""
    if not one.low:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for high, value in zip(one.high, one.y, strict=True)],
        "arrayminus": [value - low for low, value in zip(one.low, one.y, strict=True)],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _mark(figure: go.Figure, mark: Mark) -> None:
    line, band = ("add_vline", "add_vrect") if mark.axis == "x" else ("add_hline", "add_hrect")
    at = {mark.axis: mark.at, "annotation_text": mark.text, "line_dash": "dot", "line_color": "#8b95a7"}
    getattr(figure, line)(**at)
    if mark.low is not None and mark.high is not None:
        ends = {f"{mark.axis}0": mark.low, f"{mark.axis}1": mark.high}
        getattr(figure, band)(**ends, fillcolor=BEFORE, opacity=0.18, line_width=0)
