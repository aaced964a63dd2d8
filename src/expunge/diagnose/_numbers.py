"""The few statistics that diagnostics share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.core.finding import Cell, Chart, Series, Table, Tone
from expunge.core.records import Score, Scores
from expunge.evaluate.score import BOOTSTRAP_DRAWS

Numbers = NDArray[np.float64]
_BINS = 30


def resampled(num_rows: int, seed: int) -> NDArray[np.int64]:
    """(draws, R) rows of each bootstrap draw."""
    return np.random.default_rng(seed).integers(num_rows, size=(BOOTSTRAP_DRAWS, num_rows))


def mean_interval(values: Numbers, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Mean over rows with its 95% percentile interval: (R, ...) -> three times (...)."""
    counts = np.stack([np.bincount(draw, minlength=len(values)) for draw in resampled(len(values), seed)])
    means = np.tensordot(counts / len(values), values, axes=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return values.mean(axis=0), low, high


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
    """Shares of each group in bins that all have in common; `x` are the bins' centres."""
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
    """The numbers behind a chart's lines or bars: one row for each place, one column for each series.

    Args:
        chart: at least one series.
        first: heading of the places.
        n: items that each value is the mean of.
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


def recovered(
    original: Sequence[float | str], unlearned: Sequence[float | str], changed: Sequence[float | str], seed: int
) -> Score:
    """Share of what was lost that a change of the unlearned model brings back.

    `(changed - unlearned) / (original - unlearned)` of the means over the rows that all three have a number for, with
    the 95% percentile interval over rows. Absent where the loss is not clear of 0: a share of nothing is no number.

    Args:
        original: values of R rows, or why there is none.
        unlearned: the same of the unlearned model.
        changed: the same of the changed one.
        seed: of the bootstrap.
    """
    rows = [
        row for row in zip(original, unlearned, changed, strict=True) if not any(isinstance(one, str) for one in row)
    ]
    if not rows:
        return Score(value=None, reason=next((one for one in original if isinstance(one, str)), "no rows"))
    before, after, back = np.array(rows, dtype=np.float64).T
    draws = resampled(len(rows), seed)
    lost = (before - after)[draws].mean(1)
    if np.quantile(lost, 0.025) <= 0:
        return Score(value=None, n=len(rows), reason="nothing was clearly lost")
    gained = (back - after)[draws].mean(1)
    shares = gained[lost > 0] / lost[lost > 0]
    low, high = np.quantile(shares, [0.025, 0.975])
    value = (back - after).mean() / (before - after).mean()
    return Score(value=float(value), low=float(low), high=float(high), n=len(rows), better="neither")


def bars(metric: str, scores: Mapping[str, Scores]) -> Chart:
    """One metric on each split under every condition that has a value."""
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
