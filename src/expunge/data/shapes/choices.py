"""Multiple choice: `choices` with the place or letter of the right one as answer (MMLU, WMDP, ARC)."""

from __future__ import annotations

from typing import Any, ClassVar

from expunge.core.errors import UserError
from expunge.data.choices import letters
from expunge.data.shapes.base import ParsedRow, RowValues, Shape
from expunge.data.values import nested, options_with, text_of, texts_of

_ANSWERS = ("answer", "answerKey")


class Choices(Shape):
    """A number counts from 0. A letter is one of `A`, `B`, ..., or of the labels that ARC gives beside the texts."""

    columns: ClassVar = ("choices", "answerKey")

    def fits(self, row: RowValues) -> bool:
        """A question or prompt with choices and an answer."""
        return bool({"choices", "options"} & set(row)) and any(column in row for column in _ANSWERS)

    def read(self, row: RowValues, where: str) -> ParsedRow:
        """Options, and the text of the right one as answer."""
        column = "choices" if "choices" in row else "options"
        key = "answer" if "answer" in row else "answerKey"
        if "choices" in row and "options" in row:
            raise UserError(f"{where}: a row has one list of options; this one has 'choices' and 'options'")
        found = nested(row[column], column, where)
        labels: list[str] = []
        if isinstance(found, dict) and {"text", "label"} <= set(found):
            labels, found = [str(one) for one in found["label"]], found["text"]
        answer = row[key][0] if isinstance(row[key], list) and len(row[key]) == 1 else row[key]
        options = texts_of(found, column, where, options_with(answer.strip() if isinstance(answer, str) else ""))
        right = _right(answer, options, labels, column, key, where)
        return ParsedRow({"options": list(options), "answer": right}, {"options": column, "answer": key}, (column, key))


def _right(answer: Any, options: tuple[str, ...], labels: list[str], column: str, key: str, where: str) -> str:
    """The text of the right option; the answer's own text where it names none.

    Raises:
        UserError: the answer could be two.
    """
    text = text_of(answer, key, where)
    place = _place(answer, text, len(options), labels)
    is_number = isinstance(answer, int | float)
    if not place or (text in options and column == "options" and not is_number):
        return text
    named = options[place - 1]
    if text in options and text != named and not (is_number and column == "choices"):
        raise UserError(f"{where}: '{key}' is one option and the place of another; give the right option's text")
    return named


def _place(answer: Any, text: str, count: int, labels: list[str]) -> int:
    """Which option a number from 0 or a letter names, from 1; 0: none."""
    if labels:
        return labels.index(text) + 1 if text in labels else 0
    if text in letters(count) and isinstance(answer, str):
        return letters(count).index(text) + 1
    return int(text) + 1 if text.isdecimal() and int(text) < count else 0
