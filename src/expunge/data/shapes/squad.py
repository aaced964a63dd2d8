"""SQuAD: questions on a passage, and answers with their places in it, or none (arXiv:1606.05250)."""

from __future__ import annotations

from typing import Any, ClassVar

from expunge.data.shapes.base import ParsedRow, RowValues, Shape
from expunge.data.values import is_number, nested


class Squad(Shape):
    """The question is asked without its passage: with it, the answer could be copied. `answer_start` is an offset."""

    columns: ClassVar = ("answers",)

    def fits(self, row: RowValues) -> bool:
        """A question with `answers`, or with a passage and an offset into it."""
        return "question" in row and ("answers" in row or self._has_offset(row))

    def left_out(self, row: RowValues) -> str | None:
        """Questions that the passage does not answer teach nothing."""
        if row.get("is_impossible") in (True, "True", "true"):
            return "questions without an answer"
        if "question" in row and "answers" in row:
            found = row["answers"]
            texts = found.get("text") if isinstance(found, dict) else found
            return "questions without an answer" if texts == [] else None
        return None

    def read(self, row: RowValues, where: str) -> ParsedRow:
        """The first answer, and the others that differ from it as accepted ones."""
        columns = ["question"]
        values: dict[str, Any] = {"question": row["question"]}
        used = {"question": "question"}
        if self._has_offset(row):
            columns.append("answer_start")
            if "answer" not in row and "answers" not in row and "text" in row:
                columns.append("text")
                values["answer"], used["answer"] = row["text"], "text"
        if "answers" in row:
            columns.append("answers")
            found = _texts(nested(row["answers"], "answers", where))
            name = "accepted_answers" if "answer" in row else "answer"
            values[name], used[name] = found, "answers"
        return ParsedRow(values, used, tuple(columns))

    def _has_offset(self, row: RowValues) -> bool:
        value = row.get("answer_start")
        offset = value[0] if isinstance(value, list) and value else value
        return "context" in row and is_number(offset.strip("[] ") if isinstance(offset, str) else offset)


def _texts(value: Any) -> Any:
    """The texts of `{"text": [...]}` or `[{"text": ...}, ...]`; anything else as it is."""
    if isinstance(value, dict) and "text" in value:
        return value["text"]
    if isinstance(value, list):
        return [one["text"] if isinstance(one, dict) and "text" in one else one for one in value]
    return value
