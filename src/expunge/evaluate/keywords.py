"""Keywords that count: one that the prompt contains is no sign of knowledge."""

from __future__ import annotations

from expunge.data.example import Example
from expunge.data.matching import DEFAULT, Match, holds_any
from expunge.evaluate.base import Absent, Item

GIVEN_AWAY = "rows whose keywords all occur in their own question"


def prompt_text(row: Example, question: str | None = None, continuation: str | None = None) -> str:
    """The text of a row that precedes the answer, without the layout of a template.

    Args:
        row: the row.
        question: used instead of the row's own, e.g. the paraphrase.
        continuation: of a document, the part that is to be generated. Default: all of it.
    """
    if row.text is not None:
        read = row.text.removesuffix(continuation) if continuation else row.text
        return "" if read == row.text else read
    turns = [turn.content for turn in row.history]
    parts = [row.system, *turns, question or row.asked, row.answer_start]
    return "\n".join(part for part in parts if part)


def counted_keywords(row: Example, prompt: str, match: Match = DEFAULT) -> tuple[str, ...]:
    """The keywords of a row that its prompt does not contain."""
    return tuple(keyword for keyword in row.keywords if not holds_any(prompt, [keyword], match))


def required_keywords(item: Item, question: str | None = None) -> tuple[str, ...]:
    """The keywords whose presence in an answer shows that the model knows the fact.

    Args:
        item: evidence of a row.
        question: that was used instead of the row's own.

    Raises:
        Absent: the row has no keywords, or its prompt contains all of them.
    """
    row = item.example
    if not row.keywords:
        raise Absent("rows without keywords")
    counted = counted_keywords(row, prompt_text(row, question, item.continuation), item.match)
    if not counted:
        raise Absent(GIVEN_AWAY)
    return counted
