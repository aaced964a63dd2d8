"""From the messages of a conversation to the question that is asked last, its answer, and what came before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.core.errors import UserError
from expunge.data.values import alternating


def fields_of(messages: Sequence[tuple[str, str]], column: str, where: str) -> dict[str, Any]:
    """`system`, `history`, `question` and `answer` of a conversation that ends with the assistant's message.

    Raises:
        UserError: a system message after the start, speakers that do not take turns, no answer at the end.
    """
    count = next((place for place, (role, _) in enumerate(messages) if role != "system"), len(messages))
    system, turns = [text for _, text in messages[:count]], messages[count:]
    if any(role == "system" for role, _ in turns):
        raise UserError(f"{where}: '{column}': a system message is only possible at the start")
    if len(turns) < 2:
        raise UserError(f"{where}: '{column}' needs at least a message of the user and the assistant's answer")
    alternating(turns, column, where)
    found: dict[str, Any] = {"question": turns[-2][1], "answer": turns[-1][1]}
    if system:
        found["system"] = "\n\n".join(system)
    if turns[:-2]:
        found["history"] = [list(turn) for turn in turns[:-2]]
    return found
