"""What a diagnostic found, as numbers: the terminal, the page and any program draw the same record."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from expunge.core.records import DataPrint, Frozen, Provenance, Score

Tone = Literal["original", "unlearned", "forget", "retain"]
Cell = str | int | float | Score | None
"""A table's cell; None: there is nothing to say."""


class Series(Frozen):
    """One line, one set of bars or of boxes: a value at each place."""

    name: str
    x: list[float] | list[str] = Field(description="Places: numbers, or names of groups")
    y: list[float] = Field(description="Values; of a box its median")
    low: list[float] = Field(default_factory=list, description="Lower end of each interval; of a box its quartile")
    high: list[float] = Field(default_factory=list, description="Upper end of the same")
    lowest: list[float] = Field(default_factory=list, description="Lower whisker of each box")
    highest: list[float] = Field(default_factory=list, description="Upper whisker of each box")
    tone: Tone | None = Field(None, description="What it is of; decides its colour")
    hue: int | None = Field(None, description="Lines of one hue share a colour; none: each its own")
    weight: int = Field(0, description="0, 1, 2...: tells lines of one tone apart")


class Mark(Frozen):
    """A level to compare with, and where there is one the band around it."""

    text: str
    axis: Literal["x", "y"]
    at: float
    low: float | None = None
    high: float | None = None


class Chart(Frozen):
    """One pair of axes."""

    title: str
    caption: str
    across: str = Field(description="Title of the horizontal axis, with its unit")
    up: str = Field(description="Title of the vertical axis, with its unit")
    style: Literal["line", "histogram", "bar", "box"]
    series: list[Series]
    marks: list[Mark] = Field(default_factory=list)
    log: bool = Field(False, description="Logarithmic vertical axis")


class Table(Frozen):
    """Rows under their headings."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


class ReportSection(Frozen):
    """What a diagnostic has to say."""

    title: str
    sentence: str = Field(description="What was found, in plain words")
    notes: list[str] = Field(default_factory=list, description="How to read it, and what it does not show")
    tables: list[Table]
    charts: list[Chart]


class Diagnosis(Frozen):
    """A finding with all that is needed to repeat it."""

    schema_version: Literal[1] = 1
    diagnostic: str
    subject: str = Field(description="Run directory or model, as the user gave it")
    models: dict[str, str] = Field(description="original, and of a run unlearned -> which model that was")
    data: dict[str, DataPrint]
    options: dict[str, Any]
    seed: int
    provenance: Provenance
    seconds: float
    finding: ReportSection
