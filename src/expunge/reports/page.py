"""What every page is made with: templates, the words in them, and the script that draws."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.reports.aggregates import aggregate_text
from expunge.reports.formats import ABSENT, duration, number, score_text
from expunge.reports.metric_texts import metric_title

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
    environment.filters.update(metric_title=metric_title, duration=duration, with_interval=with_interval)
    environment.globals.update(score_text=score_text, aggregate_text=aggregate_text, number=number)
    return environment


def with_interval(text: str) -> Markup:
    """A cell whose interval, or whose reason for being absent, can stand below its value."""
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
    """plotly.js, gzipped and base64: 1.9 MB in place of 4.8; the page unpacks it by itself."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode("ascii")
