"""Options of the report."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import Frozen


class ReportConfig(Frozen):
    """Options of the report."""

    show_forget_text: bool = Field(
        False, description="Keep questions and answers in the report and in items.parquet; off: ids only"
    )
