"""Pages: their templates, the filters that these use, and the script that draws."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.core.report_section import Chart, Series
from expunge.reports.formats import ABSENT, cell_text, duration, number, score_text
from expunge.reports.metric_texts import metric_meaning, metric_title

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Templates and the words that they use; compiled once in a process, which may write many pages."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"metric_title": metric_title, "duration": duration, "with_interval": with_interval, "drawn": drawn}
    environment.filters.update(filters, cell_text=cell_text, in_words=in_words, metric_meaning=metric_meaning)
    environment.globals.update(score_text=score_text, number=number)
    return environment


def render(template: str, charts: Sequence[Chart], **context: object) -> str:
    """A self-contained page.

    Args:
        template: file name.
        charts: the charts that the page draws; without any it needs no script to draw them.
        context: names that the template reads.
    """
    plotly = plotly_script() if any(chart.series for chart in charts) else ""
    return environment().get_template(template).render(plotly=plotly, **context)


def drawn(chart: Chart) -> Markup:
    """The chart's figure as JSON."""
    from markupsafe import Markup

    from expunge.reports.charts import draw

    return Markup(draw(chart).to_json())


def in_words(chart: Chart) -> str:
    """The chart for readers who do not see it."""
    return chart.alt or f"{chart.title}: {', '.join(map(_ends, chart.series))}."


def _ends(one: Series) -> str:
    """First and last value."""
    if not one.y:
        return f"{one.name} without values"
    first, last = (f"{cell_text(one.y[end])} at {cell_text(one.x[end])}" for end in (0, -1))
    return f"{one.name} {first} to {last}"


def with_interval(text: str) -> Markup:
    """A cell whose interval, or reason for being absent, can be shown below its value."""
    from markupsafe import Markup

    value, bracket, interval = text.partition(" [")
    if bracket:
        return Markup('{} <span class="ci">[{}</span>').format(value, interval)
    value, colon, reason = text.partition(f"{ABSENT}: ")
    if colon and not value:
        return Markup('{} <span class="reason">{}</span>').format(ABSENT, reason)
    return Markup("{}").format(text)


@cache
def plotly_script() -> str:
    """plotly.js, gzipped and base64: 1.9 MB instead of 4.8; the page unpacks it by itself."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii")
