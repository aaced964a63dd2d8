"""Sections of reports as records of numbers: the terminal, the pages and any other program draw the same record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_serializer

from expunge.core.records import DataPrint, Frozen, Provenance, Score

Tone = Literal["original", "unlearned", "forget", "retain"]
Style = Literal["line", "band", "histogram", "bar", "stack", "box", "scatter"]
"""line and bar: intervals as error bars; band: a line, its intervals as an area; stack: horizontal bars of shares, one
at each place, whose parts are the series; scatter: a series is a point, or through several points a dotted line."""
Cell = str | int | float | Score | None
"""A table's cell; None: empty."""


class Series(Frozen):
    """One line, one set of bars or of boxes, or one point: a value at each place."""

    name: str
    x: list[float] | list[str] = Field(description="Places: numbers, or names of groups")
    y: list[float] = Field(description="Values; of a box its median")
    low: list[float] = Field(default_factory=list, description="Lower end of each interval; of a box its quartile")
    high: list[float] = Field(default_factory=list, description="Upper end of the same")
    lowest: list[float] = Field(
        default_factory=list, description="Lower whisker of each box; lower end of a scattered point's x interval"
    )
    highest: list[float] = Field(default_factory=list, description="Upper whisker, or upper end of the same")
    tone: Tone | None = Field(None, description="The model or rows that it is about; decides its colour")
    hue: int | None = Field(None, description="Series of one hue share a colour; default: each has its own")
    weight: int = Field(0, description="0, 1, 2...: distinguishes series of one tone or hue by dashes or symbols")


class Mark(Frozen):
    """A level to compare with, a band, or a level within a band."""

    text: str
    axis: Literal["x", "y"]
    at: float | None = None
    low: float | None = None
    high: float | None = None


class Chart(Frozen):
    """One pair of axes; a chart without series is not drawn, and its caption says why."""

    title: str
    caption: str
    across: str = Field(description="Title of the horizontal axis, with its unit")
    up: str = Field(description="Title of the vertical axis, with its unit")
    style: Style
    series: list[Series]
    marks: list[Mark] = Field(default_factory=list)
    log: bool = Field(False, description="Logarithmic vertical axis")
    alt: str = Field("", description="The chart in words; default: first and last value of each series")
    menu: dict[str, list[str]] = Field(
        default_factory=dict, description="Entry of a menu -> names of the series that it shows; default: no menu"
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, written: Callable[[Chart], dict[str, Any]]) -> dict[str, Any]:
        """Leave out what few charts have, so that records of version 0.1 keep their form."""
        return {key: value for key, value in written(self).items() if value or key not in ("alt", "menu")}


class Table(Frozen):
    """Rows under their headings."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


class ReportSection(Frozen):
    """A result with everything that explains it."""

    title: str
    sentence: str = Field(description="The result, in plain words")
    notes: list[str] = Field(default_factory=list, description="How to read it, and what it does not show")
    tables: list[Table]
    charts: list[Chart]


class Diagnosis(Frozen):
    """The result of a diagnostic with everything that is needed to repeat it."""

    schema_version: Literal[1] = 1
    diagnostic: str
    subject: str = Field(description="Run directory or model, as the user gave it")
    models: dict[str, str] = Field(description="original and, of a run, unlearned -> name or folder of that model")
    data: dict[str, DataPrint]
    options: dict[str, Any]
    seed: int
    provenance: Provenance
    seconds: float
    finding: ReportSection
