"""Instructions: Alpaca's `instruction`, `input` and `output`, Dolly's `instruction`, `context` and `response`."""

from __future__ import annotations

from typing import Any, ClassVar

from expunge.core.errors import UserError
from expunge.data.shapes.base import ParsedRow, RowValues, Shape
from expunge.data.values import text_of

_INPUTS, _ANSWERS = ("input", "context"), ("output", "response")


class Alpaca(Shape):
    """The input, where there is one, follows the instruction after an empty line."""

    columns: ClassVar = ("instruction", "output")

    def fits(self, row: RowValues) -> bool:
        """An instruction with an answer under one of the two names."""
        return "instruction" in row and any(column in row for column in _ANSWERS)

    def read(self, row: RowValues, where: str) -> ParsedRow:
        """Question and answer."""
        columns = ["instruction"]
        asked = text_of(row["instruction"], "instruction", where, numbers=False)
        for group in (_INPUTS, _ANSWERS):
            there = [column for column in group if column in row]
            if len(there) > 1:
                raise UserError(f"{where}: this row has '{there[0]}' and '{there[1]}'; leave one out (ignore = [...])")
            columns += there
        answer = columns[-1]
        if len(columns) == 3:
            asked += f"\n\n{text_of(row[columns[1]], columns[1], where)}"
        values: dict[str, Any] = {"question": asked, "answer": row[answer]}
        used = {"question": " + ".join(columns[:-1]), "answer": answer}
        if "text" in row and _is_rendering(str(row["text"]), str(row["instruction"]), str(row[answer])):
            columns.append("text")
        return ParsedRow(values, used, tuple(columns))


def _is_rendering(text: str, instruction: str, answer: str) -> bool:
    """Whether a text is the whole row laid out, as the published set has it beside the columns."""
    return instruction.strip() in text and answer.strip() in text
