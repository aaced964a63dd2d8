"""Nothing that somebody else wrote is obeyed by a terminal."""

from __future__ import annotations

import pytest

from expunge.core.printable import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("evil\u202etxt.exe", r"evil\u202etxt.exe"),
        ("\u2066a\u2069\u200f", r"\u2066a\u2069\u200f"),
        ("over\rwritten", r"over\x0dwritten"),
        ("half \udc80", r"half \udc80"),
        ("\x00\x7f", r"\x00\x7f"),
        ("two\nlines\tand a tab\r\n", "two\nlines\tand a tab\n"),
        ("नमस्ते 👩\u200d🔬 é 日本 [bold]", "नमस्ते 👩\u200d🔬 é 日本 [bold]"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    """Joiners inside words and emoji stay: without them other letters would be read."""
    assert printable(text) == shown


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert one_line("  a\r\n\n\tb\u2028c\x85d\x0ce\x1b[2J\n") == r"a b c d e\x1b[2J"
