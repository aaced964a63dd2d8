"""From bytes to text: which Unicode encoding it is, and what is not text at all."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

from expunge.core.errors import UserError
from expunge.data.formats.base import reading

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, the longer ones first, and the codec that removes each."""
_WIDE_SHARE = 0.1
"""Of the characters of UTF-16 text without a mark, at least this share is ASCII (field names, separators, quotes)."""
_WIDE_COUNT = 4
"""And so many, and so many times as many as there are zero bytes at the other places (U+4E00 has one there): a file
with fewer is a damaged one."""
_NOT_UNICODE = (
    'not UTF-8 text (byte {byte} in line {line}); save it as UTF-8 (Excel: "CSV UTF-8"), or name its encoding: '
    'encoding = "cp1252" (Western European Windows), "cp1250" (Central European), "cp1251" (Cyrillic), "gb18030", ...'
)


class Decoded(NamedTuple):
    """Text, and the encoding that it had."""

    text: str
    encoding: str


def read_text(path: Path, encoding: str | None) -> Decoded:
    """The text of a file, without a byte order mark.

    An encoding that is not Unicode is never guessed: on short texts every guess is wrong for some language.

    Raises:
        UserError: unreadable, or not text in this encoding.
    """
    with reading(path):
        data = path.read_bytes()
    name = encoding or _unicode(data)
    try:
        text = data.decode(name)
    except LookupError:
        raise UserError(f"{path}: encoding: Python knows no encoding '{name}'") from None
    except (UnicodeDecodeError, UnicodeError) as error:
        if encoding is not None:
            raise UserError(f"{path}: not {encoding} text ({error})") from None
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        if name != "utf-8":
            raise UserError(f"{path}: damaged {name} text (byte {start})") from None
        message = _NOT_UNICODE.format(byte=start, line=data.count(b"\n", 0, start) + 1)
        raise UserError(f"{path}: {message}") from None
    text = text.removeprefix("\ufeff")
    if (place := text.find("\0")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise UserError(f"{path}:{line}: holds a NUL character; the file is damaged or not text")
    return Decoded(text, name.removesuffix("-sig"))


def _unicode(data: bytes) -> str:
    """UTF-8 unless a byte order mark, or zero bytes at every other place, say otherwise."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    zeros = [data[place::2].count(0) for place in (0, 1)]
    for name, of_ascii, other in (("utf-16-le", zeros[1], zeros[0]), ("utf-16-be", zeros[0], zeros[1])):
        if of_ascii >= max(_WIDE_COUNT, _WIDE_SHARE * len(data) / 2, _WIDE_COUNT * other):
            return name
    return "utf-8"
