"""Charts of a finding as figures."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from expunge.core.report_section import Chart, Mark, Series
from expunge.reports.canvas import AFTER, BEFORE, FORGET, HEIGHT, KEEP, blank

_COLOURS = {"original": BEFORE, "unlearned": AFTER, "forget": FORGET, "retain": KEEP}
_HUES = (AFTER, FORGET, KEEP, BEFORE, "#a35fc2", "#c99400", "#2aa5c9", "#c9508f")
"""Apart for most eyes; what shares a hue has its own dashes or symbols."""
_SYMBOLS = ("circle", "square", "diamond", "cross")
_ROW = 20
"""Pixels that a line of the legend takes."""
_TICKS = 8
_DASHES = ("solid", "dash", "dot", "dashdot")


def draw(chart: Chart) -> go.Figure:
    """The chart's figure."""
    figure = blank(chart.across, chart.up)
    for place, one in enumerate(chart.series):
        hue = place if one.hue is None else one.hue
        colour = _COLOURS[one.tone] if one.tone else _HUES[hue % len(_HUES)]
        _STYLES[chart.style](figure, one, colour)
    for mark in chart.marks:
        _mark(figure, mark)
    names = [one.name for one in chart.series]
    figure.update_layout(height=HEIGHT + _ROW * max(0, len(names) - 4), showlegend=len(names) > 1)
    places = [x for one in chart.series for x in one.x]
    if chart.style == "line" and places and all(isinstance(x, (int, float)) and x == int(x) for x in places):
        numbers = [float(x) for x in places]
        figure.update_xaxes(dtick=max(1, math.ceil((max(numbers) - min(numbers)) / _TICKS)), tickformat="d")
    heights = [y for one in chart.series for y in one.y]
    if chart.log:
        figure.update_yaxes(type="log", dtick=1)
    elif heights and min(heights) >= 0 and max(heights) <= 1 and chart.style != "histogram":
        figure.update_yaxes(rangemode="tozero")
    return figure


def _line(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_scatter(
        x=one.x,
        y=one.y,
        name=one.name,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": _DASHES[one.weight % len(_DASHES)]},
        marker={"size": 6, "color": colour, "symbol": _SYMBOLS[(one.hue or 0) // len(_HUES) % len(_SYMBOLS)]},
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
