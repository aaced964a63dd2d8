"""JSON in, strictly: no repeated keys, no infinite numbers."""

from __future__ import annotations

import json
import math
import re

from expunge.core.errors import UserError
from expunge.data.formats.base import RawRow

_LINE_ENDS = re.compile(r"\r\n|\n|\r")
_ROLES = ("role", "from")


class _Refused(ValueError):
    """A JSON text that parses, but means nothing certain."""


class NotOneValueError(Exception):
    """The text holds one JSON value after another."""


def parse(text: str, where: str, *, numbered: bool = False) -> object:
    """The value of a JSON text.

    Args:
        text: one JSON value.
        where: file, or file and line.
        numbered: whether a message adds the line inside the text.

    Raises:
        UserError: not JSON, a repeated key, a number out of range, nested too deeply.
        NotOneValueError: several values.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and numbered:
            raise NotOneValueError from None
        place = f"{where}:{error.lineno}" if numbered else where
        raise UserError(f"{place}: not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise UserError(f"{where}: JSON that is nested too deeply") from None
    except ValueError as error:
        reason = str(error) if isinstance(error, _Refused) else "a number with too many digits"
        raise UserError(f"{where}: {reason}") from None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise _Refused(f"key '{twice:.40}' is in one object more than once")
    return found


def _constant(name: str) -> float:
    if name == "NaN":  # how json.dump writes a missing number; empty like null
        return math.nan
    raise _Refused(f"{name} is no JSON number")


def lines(text: str, where: str) -> list[RawRow]:
    """Rows of JSON lines; blank lines are no rows."""
    numbered = enumerate(_LINE_ENDS.split(text), start=1)
    return [
        RawRow(f"{where}:{number}", as_row(parse(line, f"{where}:{number}"), f"{where}:{number}"))
        for number, line in numbered
        if line.strip()
    ]


def as_row(value: object, where: str) -> dict[str, object]:
    """An object as it is; a bare string is a text, a bare list of turns a conversation."""
    if isinstance(value, str):
        return {"text": value}
    if is_turns(value):
        return {"messages": value}
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with field names, found {type(value).__name__}")
    return value


def is_turns(value: object) -> bool:
    """Whether it is a list of objects that each say who speaks."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and any(role in one for role in _ROLES) for one in value)
    )
