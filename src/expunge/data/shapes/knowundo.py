"""KnowUnDo: a question under `text` with its answer under `labels` (arXiv:2407.01920)."""

from __future__ import annotations

from typing import ClassVar

from expunge.data.shapes.base import ParsedRow, RowValues, Shape


class KnowUnDo(Shape):
    """A `text` whose `labels` is a text too is no document."""

    columns: ClassVar = ()

    def fits(self, row: RowValues) -> bool:
        """Both are texts, and nothing else is asked."""
        return (
            isinstance(row.get("text"), str)
            and isinstance(row.get("labels"), str)
            and not {"question", "prompt", "answer"} & set(row)
        )

    def read(self, row: RowValues, where: str) -> ParsedRow:
        """Question and answer."""
        values = {"question": row["text"], "answer": row["labels"]}
        return ParsedRow(values, {"question": "text", "answer": "labels"}, ("text", "labels"))
