"""Charts and tables that diagnostics share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from expunge.core.errors import UserError
from expunge.core.records import Score, Scores, StepLog
from expunge.core.report_section import Cell, Chart, Mark, Series, Table, Tone
from expunge.numerics.intervals import Numbers

_BINS = 30


def five(values: Numbers) -> list[float]:
    """The 5%, 25%, 50%, 75% and 95% quantiles."""
    return [float(value) for value in np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])]


def box(name: str, groups: dict[str, Numbers], tone: Tone) -> Series:
    """Median, quartiles, and whiskers at 5% and 95% of each group."""
    lowest, low, median, high, highest = zip(*map(five, groups.values()), strict=True)
    return Series(
        name=name,
        x=list(groups),
        y=list(median),
        low=list(low),
        high=list(high),
        lowest=list(lowest),
        highest=list(highest),
        tone=tone,
    )


def histograms(groups: Sequence[tuple[str, Tone, Numbers]]) -> list[Series]:
    """Shares of each group in common bins; `x` are the centres of the bins."""
    edges = np.histogram_bin_edges(np.concatenate([values for _, _, values in groups]), _BINS)
    centres = [float(centre) for centre in (edges[1:] + edges[:-1]) / 2]
    return [
        Series(
            name=name,
            x=centres,
            y=[float(share) for share in np.histogram(values, edges)[0] / len(values)],
            tone=tone,
        )
        for name, tone, values in groups
    ]


def table_of(chart: Chart, first: str, n: int) -> Table:
    """The numbers of a chart's lines or bars: one row per position, one column per series.

    Args:
        chart: has at least one series.
        first: heading of the positions.
        n: number of items in each mean.
    """
    cells: dict[float | str, dict[str, Score]] = {}
    for one in chart.series:
        low, high = (one.low, one.high) if one.low else ([None] * len(one.x), [None] * len(one.x))
        places: list[float | str] = [*one.x]
        for x, value, bottom, top in zip(places, one.y, low, high, strict=True):
            cells.setdefault(x, {})[one.name] = Score(value=value, low=bottom, high=top, n=n)
    names = [one.name for one in chart.series]
    rows: list[list[Cell]] = [
        [int(x) if isinstance(x, float) and x.is_integer() else x, *(found.get(name) for name in names)]
        for x, found in cells.items()
    ]
    return Table(caption=f"{chart.title}: {chart.up}", columns=[first, *names], rows=rows)


def bars(metric: str, scores: Mapping[str, Scores]) -> Chart:
    """One metric on each split, for every condition that has a value."""
    series = []
    for split in scores["original"]:
        known = {name: one[split][metric] for name, one in scores.items() if one[split][metric].value is not None}
        if known:
            series.append(
                Series(
                    name=split,
                    x=list(known),
                    y=[one.value for one in known.values() if one.value is not None],
                    low=[one.low for one in known.values() if one.low is not None],
                    high=[one.high for one in known.values() if one.high is not None],
                    tone="forget" if split == "forget" else "retain",
                )
            )
    return Chart(
        title=metric.replace("_", " ").capitalize(),
        caption="Means over rows with their 95% intervals.",
        across="",
        up=metric.replace("_", " "),
        style="bar",
        series=series,
    )


def logged(
    steps: Sequence[StepLog], names: Mapping[str, str], title: str, up: str, marks: Sequence[Mark] = ()
) -> Chart:
    """A chart of logged values over the steps; values that were not logged are left out.

    Args:
        steps: of a run.
        names: logged name -> name in the chart.
        title: of the chart.
        up: title of the vertical axis, with its unit.
        marks: levels for comparison.
    """
    series = []
    for name, shown in names.items():
        found = [(float(log.step), log.values[name]) for log in steps if name in log.values]
        if found:
            series.append(Series(name=shown, x=[step for step, _ in found], y=[value for _, value in found]))
    return Chart(title=title, caption="", across="step", up=up, style="line", series=series, marks=list(marks))


def require(charts: Sequence[Chart], what: str, remedy: str) -> list[Chart]:
    """The charts with at least one series.

    Raises:
        UserError: there are none.
    """
    filled = [chart for chart in charts if chart.series]
    if not filled:
        raise UserError(f"{what}: this run logged no such values; {remedy}")
    return filled
