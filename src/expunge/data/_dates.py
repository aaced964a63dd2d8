"""Dates in English and in digits: the same day in another order or layout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import regex

_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = (
    "(?P<month>"
    + "|".join(f"{name[:3]}(?:{name[3:]}|{'t' if name == 'september' else ''})" for name in _MONTHS)
    + r")\.?"
)
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_LEFT, _RIGHT = r"(?<![\p{L}\p{N}]|\d[.,/-])", r"(?![\p{L}\p{N}]|[./-]\d)"
_PATTERNS = tuple(
    regex.compile(_LEFT + pattern + _RIGHT)
    for pattern in (
        rf"(?:the )?{_DAY} (?:day )?(?:of )?{_MONTH}(?:,? (?:in )?(?:the year )?{_YEAR})?",
        rf"{_MONTH} (?:the )?{_DAY}(?:,? (?:in )?{_YEAR})?",
        rf"{_DAY}[-/]{_MONTH}[-/]{_YEAR}",
        rf"{_YEAR}[-/.](?P<month>[01]?\d)[-/.]{_DAY}",
        rf"{_DAY}[-/.] ?(?P<month>[01]?\d)[-/.] ?{_YEAR}",
        rf"(?P<month>[01]?\d)[-/.]{_DAY}[-/.]{_YEAR}",
    )
)


class Date(NamedTuple):
    """A day of a month, perhaps of a year."""

    day: int
    month: int
    year: int | None

    def says(self, other: Date) -> bool:
        """Whether this date states the other one."""
        return (self.day, self.month) == (other.day, other.month) and other.year in (None, self.year)


@lru_cache(maxsize=1024)
def dates_in(text: str) -> tuple[tuple[tuple[int, int], tuple[Date, ...]], ...]:
    """Spans of a folded text that are dates, with what each may mean."""
    spans: dict[tuple[int, int], list[Date]] = {}
    for span, date in _all(text):
        spans.setdefault(span, []).append(date)
    return tuple((span, tuple(dates)) for span, dates in spans.items())


@lru_cache(maxsize=8192)
def one_date(text: str) -> tuple[Date, ...] | None:
    """Possible meanings of a folded text that is a date and nothing else; None if it is not."""
    found = tuple(date for span, date in _all(text) if span == (0, len(text)))
    return found or None


def _all(text: str) -> Iterator[tuple[tuple[int, int], Date]]:
    for pattern in _PATTERNS:
        for found in pattern.finditer(text, overlapped=True):
            fields = found.groupdict()
            month = fields["month"]
            number = int(month) if month.isdecimal() else [name[:3] for name in _MONTHS].index(month[:3]) + 1
            date = Date(int(fields["day"]), number, int(fields["year"]) if fields["year"] else None)
            if 1 <= date.day <= 31 and 1 <= date.month <= 12:
                yield found.span(), date
