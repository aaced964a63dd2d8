"""Values of raw rows as texts and lists of texts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.core.errors import UserError
from expunge.data.cells import structure
from expunge.data.example import Turn, holds_any

_MISSING = ("NAType", "NaTType")
"""pandas' own values for what is missing."""
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that no text holds: control characters other than white space, and halves of surrogate pairs."""
_INVISIBLE = re.compile("[\\s\u200b-\u200f\u2060\ufeff]*")
"""White space, and marks without a shape of their own."""
_EXACT_FLOAT = 2.0**53
_LINE = re.compile(r"\r\n|\r|\n")
_SENTENCE_END = (".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u0964", "\u061f")
"""Latin, Chinese and Japanese, Devanagari and Arabic."""
_PARTS = ("\n", "|", ";")
"""What separates the items of a list in one cell, the surest first."""
_TURNS = ("user", "assistant")
_ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
"""Who speaks, by the names that OpenAI, ShareGPT and Gemma give the speakers."""


def plain(value: Any) -> Any:
    """A value of numpy, pandas or a tuple as Python's own."""
    if type(value).__name__ in _MISSING:
        return None
    if type(value).__module__.partition(".")[0] in ("numpy", "torch") and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return value


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, NaN, white space, an empty list."""
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, str):
        return _INVISIBLE.fullmatch(value) is not None
    return value is None or (isinstance(value, list | dict) and not value)


def is_number(value: Any) -> bool:
    """Whether a value is a number, or a text that is the digits of one."""
    return isinstance(value, int | float) or (isinstance(value, str) and value.strip().removeprefix("-").isdigit())


def text_of(value: Any, column: str, where: str, *, numbers: bool = True, verbatim: bool = False) -> str:
    """A text; a number is the text that it is written as, a whole one without a decimal point.

    Args:
        value: what the column holds.
        column: its name, for messages.
        where: the row, for messages.
        numbers: whether a number will do.
        verbatim: whether white space around it is kept.

    Raises:
        UserError: something else, an empty text, a character that is none.
    """
    if numbers and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}: field '{column}' is {value}, which is no number")
        is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOAT
        return str(int(value)) if is_whole else str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: field '{column}' must be text, found {type(value).__name__} ({value!r:.40})")
    if is_empty(value):
        raise UserError(f"{where}: field '{column}' is empty")
    if found := _CONTROL.search(value):
        character = found.group(0)
        if character >= "\ud800":
            raise UserError(f"{where}: field '{column}' holds half of a surrogate pair, which is no character")
        raise UserError(f"{where}: field '{column}' holds the control character U+{ord(character):04X}")
    return value if verbatim else value.strip()


def nested(value: Any, column: str, where: str) -> Any:
    """A list or object, also where a text cell spells it out.

    Raises:
        UserError: a text that begins like one and cannot be read.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{", "(", "array(")):
        return value
    try:
        return structure(value.strip())
    except ValueError as error:
        raise UserError(f"{where}: field '{column}' begins like a list and cannot be read ({error})") from None


def quoted_list(value: Any) -> list[str] | None:
    """The texts of a cell that spells out a list of quoted texts; None of any other value."""
    if not isinstance(value, str) or not value.strip().startswith(("[", "(", "array(")):
        return None
    try:
        found = structure(value.strip())
    except ValueError:
        return None
    return found if isinstance(found, list) and found and all(isinstance(one, str) for one in found) else None


def texts_of(value: Any, column: str, where: str, split: Callable[[str, str, str], Sequence[str]]) -> tuple[str, ...]:
    """A list of texts; a single one is a list of one, unless it spells out several.

    Args:
        value: what the column holds.
        column: its name, for messages.
        where: the row, for messages.
        split: turns a single text into several: the result of `keywords_in`, `answers_like` or `options_with`.

    Raises:
        UserError: something else, or a text that may be one item or several.
    """
    if isinstance(value, str):
        bracketed = value.lstrip().startswith(("[", "array(")) or quoted_list(value) is not None
        value = nested(value, column, where) if bracketed else list(split(value, column, where))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        raise UserError(f"{where}: field '{column}' must be a list of texts, found {type(value).__name__}")
    items = tuple(text_of(one, column, where) for one in value)
    if any(quoted_list(one) is not None for one in items):
        raise UserError(f"{where}: field '{column}' is a list in which a text spells out another list")
    return items


def keywords_in(answer: str) -> Callable[[str, str, str], Sequence[str]]:
    """Keywords from one text: all of it where the answer holds it, else its lines, or what `|` or `;` separates.

    A comma separates nothing, since names and dates contain commas; a text with one is refused unless the answer
    contains it, since as a single keyword it would never be found.
    """

    def split(text: str, column: str, where: str) -> Sequence[str]:
        mark, parts = _parts(text)
        if not answer or (holds_any(answer, [text]) and mark != "\n"):
            return [text]
        if mark:
            return parts
        if "," in text:
            raise UserError(
                f"{where}: field '{column}' is one text with a comma, which the answer does not hold: one keyword or "
                'several? Write a list (["a", "b"]), or put | between them'
            )
        return [text]

    return split


def answers_like(answer: str) -> Callable[[str, str, str], Sequence[str]]:
    """Answers from one text, if it is certain that it holds several.

    The right answer must not contain the separator. If it is a sentence, either all of several are sentences, or `|`
    separates them; a semicolon alone is part of one sentence.
    """

    def split(text: str, column: str, where: str) -> Sequence[str]:
        mark, parts = _parts(text)
        if not mark:
            return [text]
        ends = [part.endswith(_SENTENCE_END) for part in parts]
        alike = all(ends) or not answer.endswith(_SENTENCE_END)
        if mark == ";" and not alike and not any(ends[:-1]):
            return [text]
        if mark in answer or not (alike or mark == "|"):
            raise UserError(f'{where}: field \'{column}\' is one text or several? Write a list (["a", "b"])')
        return parts

    return split


def options_with(answer: str) -> Callable[[str, str, str], Sequence[str]]:
    """Choices from one text, by the separator under which the answer is one of them."""

    def split(text: str, column: str, where: str) -> Sequence[str]:
        for mark in (*_PARTS, ","):
            parts = [part.strip() for part in text.split(mark)]
            if len(parts) > 1 and parts.count(answer) == 1:
                return parts
        return [text]

    return split


def _parts(text: str) -> tuple[str, list[str]]:
    """The separator of a text and the parts between; "" and no parts without a separator."""
    text = _LINE.sub("\n", text.strip())
    for mark in _PARTS:
        if mark in text:
            return mark, [part.strip() for part in text.split(mark) if part.strip()]
    return "", []


def messages_of(value: Any, column: str, where: str) -> list[tuple[str, str]]:
    """Role (system, user or assistant) and text of every message of a conversation.

    Raises:
        UserError: no list of messages, an unknown speaker, content that is not text.
    """
    value = nested(value, column, where)
    if isinstance(value, dict) and value and all(isinstance(one, list) for one in value.values()):
        names, columns = list(value), list(value.values())  # a list of objects, stored by column
        value = [dict(zip(names, row, strict=False)) for row in zip(*columns, strict=False)]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: field '{column}' must be a list of messages, found {type(value).__name__}")
    return [_message(one, f"{column}[{place}]", where) for place, one in enumerate(value)]


def _message(value: Any, name: str, where: str) -> tuple[str, str]:
    if isinstance(value, list) and len(value) == 2 and value[0] in _ROLES:
        value = {"role": value[0], "content": value[1]}
    if not isinstance(value, dict):
        raise UserError(f"{where}: '{name}' must be a message with 'role' and 'content', found {type(value).__name__}")
    speaker = value.get("role", value.get("from"))
    content = value.get("content", value.get("value"))
    role = _ROLES.get(speaker.strip().casefold()) if isinstance(speaker, str) else None
    if role is None:
        raise UserError(f"{where}: '{name}' has the unknown role {speaker!r:.40}; known: {', '.join(_ROLES)}")
    if value.get("tool_calls") or value.get("function_call"):
        raise UserError(f"{where}: '{name}' calls a tool, which is no answer")
    if isinstance(content, list):
        parts = [one.get("text") if isinstance(one, dict) else one for one in content]
        if not parts or not all(isinstance(one, str) for one in parts):
            raise UserError(f"{where}: '{name}' has parts that are not text")
        content = "".join(str(one) for one in parts)
    if content is None:
        raise UserError(f"{where}: '{name}' has no content")
    return role, text_of(content, name, where, numbers=False)


def turns_of(value: Any, column: str, where: str) -> tuple[Turn, ...]:
    """Earlier turns: messages, or pairs of a question and its answer.

    Raises:
        UserError: something else, or turns that do not alternate from the user to the assistant.
    """
    value = nested(value, column, where)
    pairs = isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value)
    if pairs and not all(one[0] in _ROLES for one in value):
        value = [{"role": role, "content": text} for one in value for role, text in zip(_TURNS, one, strict=True)]
    return alternating(messages_of(value, column, where), column, where)


def alternating(messages: Sequence[tuple[str, str]], column: str, where: str) -> tuple[Turn, ...]:
    """Messages as turns that begin with the user's and end with the assistant's.

    Raises:
        UserError: they do not.
    """
    for place, (role, _) in enumerate(messages):
        wanted = _TURNS[place % 2]
        if role != wanted:
            raise UserError(f"{where}: '{column}': message {place + 1} is the {role}'s; the {wanted}'s was expected")
    if len(messages) % 2:
        raise UserError(f"{where}: '{column}' ends with the user's message; the assistant's is missing")
    return tuple(Turn(role, text) for role, text in messages)  # type: ignore[arg-type]
