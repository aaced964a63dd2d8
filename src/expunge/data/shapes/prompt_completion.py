"""Prompts with a completion or a chosen answer, as texts or as messages (TRL)."""

from __future__ import annotations

from typing import Any, ClassVar

from expunge.core.errors import UserError
from expunge.data.shapes._chat import fields_of
from expunge.data.shapes.base import ParsedRow, RowValues, Shape
from expunge.data.values import messages_of, nested

_ANSWERS = ("completion", "chosen")


class PromptCompletion(Shape):
    """A text prompt is asked as it is, without a chat template; messages are a conversation."""

    columns: ClassVar = _ANSWERS

    def fits(self, row: RowValues) -> bool:
        """By the name of the answer's column."""
        return any(column in row for column in _ANSWERS)

    def read(self, row: RowValues, where: str) -> ParsedRow:
        """`prompt` and `answer`, or the fields of a conversation. A rejected answer is not used: it may be true."""
        there = [column for column in _ANSWERS if column in row]
        if len(there) > 1:
            raise UserError(f"{where}: a row has one answer; this one has '{there[0]}' and '{there[1]}'")
        column = there[0]
        answer = _messages_or_text(row[column], column, where)
        if "prompt" not in row:
            if isinstance(answer, str):
                return ParsedRow({"answer": answer}, {"answer": column}, (column,))
            values = fields_of(answer, column, where)
            return ParsedRow(values, dict.fromkeys(values, column), (column,))
        asked = _messages_or_text(row["prompt"], "prompt", where)
        if isinstance(asked, str):
            if not isinstance(answer, str):
                if ("user", asked.strip()) in answer:  # the whole conversation beside its question
                    values = fields_of(answer, column, where)
                    return ParsedRow(values, dict.fromkeys(values, column), ("prompt", column))
                raise UserError(f"{where}: 'prompt' is a text and '{column}' a list of messages; make both alike")
            return ParsedRow(
                {"prompt": asked, "answer": answer}, {"prompt": "prompt", "answer": column}, ("prompt", column)
            )
        said = [("assistant", answer)] if isinstance(answer, str) else answer
        both = f"prompt + {column}"
        values = fields_of([*asked, *said], both, where)
        return ParsedRow(values, dict.fromkeys(values, both), ("prompt", column))


def _messages_or_text(value: Any, column: str, where: str) -> Any:
    """Messages where there are any, also spelt out in a text; any other text as it is."""
    if isinstance(value, str) and not value.lstrip().startswith(("[{", "[ {")):
        return value
    value = nested(value, column, where)
    return messages_of(value, column, where)
