"""Split names, number formats and texts that every report shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from expunge.core import schema
from expunge.core.records import Aggregate, Score
from expunge.core.report_section import Cell

_ORDER = ("forget", "neighbour", "retain", "general", "holdout")
SPLITS = {split: schema.SPLITS[split] for split in _ORDER}
"""The usual splits in the order of a report, each with its meaning."""

FAMILIES = {
    "fe": "forget efficacy: 1 - mean of the parts",
    "mu": "model utility: harmonic mean of the parts",
    "memorisation": "how little is memorised: harmonic mean of the parts",
    "privacy": "how like a retrained model's the membership attacks are: harmonic mean of the parts",
    "utility": "harmonic mean of the nine utilities together and of clean text",
    "agg": "harmonic mean of memorisation and utility",
    "overall": "harmonic mean of memorisation, privacy and utility",
}
"""Letters at the start of an aggregate's name -> its definition."""

ABSENT = "absent"


def ordered(names: Iterable[str], first: Iterable[str]) -> list[str]:
    """The distinct `names`: those in `first` in that order, then the rest as they came."""
    known = list(dict.fromkeys(names))
    head = [name for name in first if name in known]
    return head + [name for name in known if name not in head]


def sentence_case(text: str) -> str:
    """The text with a capital first letter; the others keep theirs."""
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    """Two decimals for shares, fewer for large numbers."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e5:
        return f"{value:.2g}"
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def bare_percent(share: float) -> str:
    """0.943 -> `94`; a share under one percent keeps a decimal, so that a few are never shown as none."""
    percent = 100 * share + 1e-9
    return f"{percent:.1f}" if 0.05 <= percent < 1 else f"{percent:.0f}"


def percent(value: float, low: float | None = None, high: float | None = None) -> str:
    """`94% [88, 100]`, or `94%` without an interval."""
    text = f"{bare_percent(value)}%"
    return text if low is None or high is None else f"{text} [{bare_percent(low)}, {bare_percent(high)}]"


def interval_text(value: float, low: float | None, high: float | None, form: Callable[[float], str] = number) -> str:
    """`0.94 [0.88, 1.00]`, or `0.94` without an interval."""
    return form(value) if low is None or high is None else f"{form(value)} [{form(low)}, {form(high)}]"


def score_text(score: Score | Aggregate) -> str:
    """`0.94 [0.88, 1.00]`, or the word for an absent score (its reason is shown beside it)."""
    return ABSENT if score.value is None else interval_text(score.value, score.low, score.high)


def cell_text(cell: Cell) -> str:
    """A table's cell; an absent score with its reason."""
    if isinstance(cell, Score):
        return score_text(cell) if cell.reason is None else f"{score_text(cell)}: {cell.reason}"
    if isinstance(cell, float):
        return number(cell) if cell == 0 or abs(cell) >= 0.01 else f"{cell:.2g}"
    return "" if cell is None else str(cell)


def reason(score: Score) -> str:
    """Why the score is absent."""
    return score.reason or "no reason was recorded"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def numbers_only(evidence: Mapping[str, object]) -> dict[str, object]:
    """The entries that are numbers or lists of numbers: free text measured on forget rows is not for a report."""
    return {name: value for name, value in evidence.items() if _numeric(value)}


def _numeric(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value) and all(_numeric(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_numeric(item) for item in value)
    return isinstance(value, (int, float))
