"""Charts of report sections as figures that are legible on light and dark paper."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import plotly.graph_objects as go

from expunge.core.report_section import Chart, Mark, Series
from expunge.reports.formats import percent

_GREY, _BLUE, _ORANGE, _GREEN = "#8b95a7", "#3f83e8", "#d9642c", "#249485"
_COLOURS = {"original": _GREY, "unlearned": _BLUE, "forget": _ORANGE, "retain": _GREEN}
_HUES = (_BLUE, _ORANGE, _GREEN, _GREY, "#a35fc2", "#c99400", "#2aa5c9", "#c9508f")
"""Distinct for most eyes; series that share a hue differ in dashes or symbols."""
_PARTS = ("#56b4e9", "#cc79a7", "#e69f00", "#c9cfd8")
"""Parts of a stack, by Okabe and Ito: distinct for colour-blind eyes too."""
_GRID = "rgba(128,128,128,0.22)"
_HEIGHT = 380
_SYMBOLS = ("circle", "square", "diamond", "cross")
_DASHES = ("solid", "dash", "dot", "dashdot")
_MOST_MARKERS = 40
"""A line through more points has no symbols."""
_SMALLEST_LABEL = 0.15
"""A narrower part of a stack has no room for its number."""
_TITLE_WIDTH = 40
"""Characters of a vertical axis' title in one line; a longer one would be cut off."""
_LEGEND_ROW = 20
"""Pixels that a line of the legend takes."""
_TICKS = 8


def draw(chart: Chart) -> go.Figure:
    """The chart's figure; the page colours its text."""
    figure = _axes(chart.across, chart.up)
    hues = _PARTS if chart.style == "stack" else _HUES
    first = next(iter(chart.menu.values()), None)
    for place, one in enumerate(chart.series):
        hue = place if one.hue is None else one.hue
        _STYLES[chart.style](figure, one, _COLOURS[one.tone] if one.tone else hues[hue % len(hues)])
        if first is not None and one.name not in first:
            figure.data[-1].visible = False
    for mark in chart.marks:
        _mark(figure, mark)
    _lay_out(figure, chart)
    return figure


def _axes(across: str, up: str) -> go.Figure:
    axis = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID, "automargin": True}
    titles = {"xaxis": across, "yaxis": "<br>".join(textwrap.wrap(up, _TITLE_WIDTH))}
    # in one piece: plotly checks the whole layout again at each update, which took nine times as long
    layout = {
        "template": "none",
        "height": _HEIGHT,
        "autosize": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 12, "t": 44, "b": 12},
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": "#1d2430", "font": {"color": "#ffffff"}},
        "dragmode": False,
        **{name: {**axis, "title": {"text": text, "font": {"size": 13}}} for name, text in titles.items()},
    }
    return go.Figure(layout=layout)


def _lay_out(figure: go.Figure, chart: Chart) -> None:
    names = [one.name for one in chart.series if one.name]
    places = [x for one in chart.series for x in one.x]
    heights = [y for one in chart.series for y in one.y]
    height = _HEIGHT + _LEGEND_ROW * max(0, len(names) - 4)
    if chart.style == "stack":
        height = max(_HEIGHT, 200 + 30 * len(chart.series[0].x))
        figure.update_xaxes(tickformat=".0%", range=[0, 1], showgrid=False)
        figure.update_yaxes(autorange="reversed", showgrid=False)
        figure.update_layout(barmode="stack", bargap=0.25, legend={"traceorder": "normal"})
    elif chart.style == "scatter":
        figure.update_xaxes(tickformat=".0%", rangemode="tozero")
        figure.update_yaxes(tickformat=".0%")
    elif chart.style == "bar":
        figure.update_layout(barmode="group", bargap=0.35, bargroupgap=0.08)
        figure.update_xaxes(showgrid=False)
    elif chart.style in ("line", "band") and places and all(isinstance(x, int | float) and x == int(x) for x in places):
        numbers = [float(x) for x in places]
        figure.update_xaxes(dtick=max(1, math.ceil((max(numbers) - min(numbers)) / _TICKS)), tickformat="d")
    figure.update_layout(height=height, showlegend=len(names) > 1)
    if chart.log:
        figure.update_yaxes(type="log", dtick=1)
    elif heights and min(heights) >= 0 and max(heights) <= 1 and chart.style not in ("histogram", "stack", "scatter"):
        figure.update_yaxes(rangemode="tozero")


def _line(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_scatter(
        x=one.x,
        y=one.y,
        name=one.name,
        mode="lines+markers" if len(one.x) <= _MOST_MARKERS else "lines",
        line={"color": colour, "width": 2, "dash": _DASHES[one.weight % len(_DASHES)]},
        marker={"size": 6, "color": colour, "symbol": _SYMBOLS[(one.hue or 0) // len(_HUES) % len(_SYMBOLS)]},
        error_y=_errors(one.y, one.low, one.high, colour),
    )


def _band(figure: go.Figure, one: Series, colour: str) -> None:
    if one.low:
        figure.add_scatter(
            x=[*one.x, *reversed(one.x)],
            y=[*one.high, *reversed(one.low)],
            fill="toself",
            fillcolor=colour,
            opacity=0.15,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    _line(figure, one.model_copy(update={"low": []}), colour)


def _histogram(figure: go.Figure, one: Series, colour: str) -> None:
    line = {"color": colour, "width": 2, "shape": "hvh"}
    figure.add_scatter(x=one.x, y=one.y, name=one.name, mode="lines", fill="tozeroy", line=line)


def _bar(figure: go.Figure, one: Series, colour: str) -> None:
    errors = _errors(one.y, one.low, one.high, "#5d6778")
    figure.add_bar(x=one.x, y=one.y, name=one.name, marker={"color": colour}, error_y=errors)


def _stack(figure: go.Figure, one: Series, colour: str) -> None:
    figure.add_bar(
        y=one.x,
        x=one.y,
        name=one.name,
        orientation="h",
        marker={"color": colour, "line": {"color": "rgba(20,24,31,0.55)", "width": 1}},
        text=[percent(share) if share >= _SMALLEST_LABEL else "" for share in one.y],
        textposition="inside",
        textangle=0,
        insidetextanchor="middle",
        hovertemplate="%{y}: %{x:.0%}<extra>" + one.name + "</extra>",
    )


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


def _scatter(figure: go.Figure, one: Series, colour: str) -> None:
    if len(one.x) > 1:
        line = {"color": _GRID, "dash": "dot"}
        figure.add_scatter(x=one.x, y=one.y, mode="lines", line=line, hoverinfo="skip", showlegend=False)
        return
    figure.add_scatter(
        x=one.x,
        y=one.y,
        name=one.name,
        mode="markers",
        marker={"size": 15, "color": colour, "symbol": "star-open" if one.weight else "circle", "line": {"width": 2}},
        error_x=_errors([float(x) for x in one.x], one.lowest, one.highest, colour),
        error_y=_errors(one.y, one.low, one.high, colour),
    )


_STYLES = {
    "line": _line,
    "band": _band,
    "histogram": _histogram,
    "bar": _bar,
    "stack": _stack,
    "box": _box,
    "scatter": _scatter,
}


def _errors(values: list[float], lows: list[float], highs: list[float], colour: str) -> dict[str, Any] | None:
    """Error bars; None without intervals."""
    if not lows:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for high, value in zip(highs, values, strict=True)],
        "arrayminus": [value - low for low, value in zip(lows, values, strict=True)],
        "color": colour,
        "thickness": 1.5,
        "width": 4,
    }


def _mark(figure: go.Figure, mark: Mark) -> None:
    line, band = ("add_vline", "add_vrect") if mark.axis == "x" else ("add_hline", "add_hrect")
    text = {"annotation_text": mark.text} if mark.text else {}
    if mark.at is not None:
        getattr(figure, line)(**{mark.axis: mark.at}, line_dash="dot", line_color=_GREY, **text)
        text = {}
    if mark.low is not None and mark.high is not None:
        ends = {f"{mark.axis}0": mark.low, f"{mark.axis}1": mark.high}
        getattr(figure, band)(**ends, fillcolor=_GREY, opacity=0.18, line_width=0, layer="below", **text)
