"""Conversations: OpenAI's `messages` and ShareGPT's `conversations`, the last answer being what is learnt."""

from __future__ import annotations

from typing import ClassVar

from expunge.core.errors import UserError
from expunge.data.shapes._chat import fields_of
from expunge.data.shapes.base import ParsedRow, RowValues, Shape
from expunge.data.values import messages_of


class Messages(Shape):
    """`[{"role": "user", "content": "..."}, ...]`, or `[{"from": "human", "value": "..."}, ...]`."""

    columns: ClassVar = ("messages", "conversations", "conversation")

    def fits(self, row: RowValues) -> bool:
        """By the name of the column."""
        return any(column in row for column in self.columns)

    def read(self, row: RowValues, where: str) -> ParsedRow:
        """System prompt, earlier turns, question and answer.

        A `system` column holds the system message; a `prompt` that repeats one of the user's messages is ignored.
        """
        there = [column for column in self.columns if column in row]
        if len(there) > 1:
            raise UserError(f"{where}: a row has one conversation; this one has '{there[0]}' and '{there[1]}'")
        column = there[0]
        messages = messages_of(row[column], column, where)
        values = fields_of(messages, column, where)
        is_copy = isinstance(row.get("prompt"), str) and ("user", row["prompt"].strip()) in messages
        return ParsedRow(values, dict.fromkeys(values, column), (column, "prompt") if is_copy else (column,))
