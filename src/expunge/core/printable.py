"""Text from elsewhere (names, ids, paths, answers) made safe to show on a terminal."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, among them escape: colours, window titles, cursor moves
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks: text shown in another order than it is written
    "\u2028\u2029\ud800-\udfff]"  # line separators, and halves of characters, which no stream can encode
)
_BREAKS = re.compile("[\t\r\n\x0b\x0c\x85\u2028\u2029]+")


def printable(text: str) -> str:
    r"""Text with control and direction characters written out (`\x1b`): a terminal shows them and never obeys them.

    Line feeds and tabs stay.
    """
    return _UNSAFE.sub(_written_out, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same on one line: each run of line breaks and tabs becomes a space."""
    return printable(_BREAKS.sub(" ", text.strip()))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
