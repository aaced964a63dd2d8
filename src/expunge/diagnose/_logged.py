"""Curves of what a run logged while it trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.core.errors import UserError
from expunge.core.records import StepLog
from expunge.core.report_section import Chart, Mark, Series


def logged(
    steps: Sequence[StepLog], names: Mapping[str, str], title: str, up: str, marks: Sequence[Mark] = ()
) -> Chart:
    """A chart of those of some values that were logged, over the steps.

    Args:
        steps: a run's.
        names: logged name -> name in the figure.
        title: of the chart.
        up: title of the vertical axis, with its unit.
        marks: levels to compare with.
    """
    series = []
    for name, shown in names.items():
        found = [(float(log.step), log.values[name]) for log in steps if name in log.values]
        if found:
            series.append(Series(name=shown, x=[step for step, _ in found], y=[value for _, value in found]))
    return Chart(title=title, caption="", across="step", up=up, style="line", series=series, marks=list(marks))


def require(charts: Sequence[Chart], what: str, where: str) -> list[Chart]:
    """The charts that show something.

    Raises:
        UserError: none does.
    """
    filled = [chart for chart in charts if chart.series]
    if not filled:
        raise UserError(f"{what}: this run logged none; {where}")
    return filled
