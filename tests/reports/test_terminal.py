"""One table style at every width, and texts that are shown as they are."""

from __future__ import annotations

import re
from io import BytesIO, StringIO, TextIOWrapper

import pytest

from expunge.reports.terminal import PIPED, Cell, Terminal

HEADINGS = ["split", "metric", "before [95%]", "after [95%]", "n", "nothing"]
ROWS: list[list[Cell]] = [
    ["forget", "keyword recall", "1.00 [0.68, 1.00]", "0.50 [0.22, 0.78]", "8", ""],
    ["forget", "paraphrase keyword recall", "0.38 [0.14, 0.69]", "-0.12 [-0.02, 0.47]", "8", ""],
    ["neighbour", "probability", "0.93 [0.92, 0.95]", "0.83 [0.75, 0.88]", "16", ""],
]


def drawn(width: int, rows: list[list[Cell]] = ROWS, headings: list[str] = HEADINGS, grouped: bool = True) -> str:
    out = StringIO()
    Terminal(file=out, width=width).table(headings, rows, title="Scores", grouped=grouped)
    return out.getvalue()


@pytest.mark.parametrize("width", [24, 30, 40, 50, 60, 80, 100, 200])
def test_no_width_cuts_a_word_a_number_or_a_name(width: int) -> None:
    """Words keep their spelling, intervals stand in one piece, and every row can be told by its names."""
    shown = drawn(width)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= width
    for word in {word for row in ROWS for cell in row for word in re.split(r" (?=\[)|(?<!,) ", str(cell))}:
        assert word in shown, word
    assert "nothing" not in shown, "an empty column takes no room"


def test_the_first_name_of_a_group_is_said_once_where_there_is_room() -> None:
    assert drawn(100).count("forget") == 1
    assert drawn(100).splitlines()[1] == "Scores"
    assert drawn(28).count("forget: ") == 2, "row by row each row has its whole name"


def test_a_table_that_is_too_wide_becomes_two() -> None:
    """Nine columns of five characters need 53 columns; half of them with the name needs 29."""
    shown = drawn(40, [["row", *["12345"] * 8]], [f"h{place}" for place in range(9)], grouped=False)
    assert [line.split() for line in shown.splitlines() if "h0" in line] == [
        ["h0", "h1", "h2", "h3", "h4"],
        ["h0", "h5", "h6", "h7", "h8"],
    ]


def test_wide_letters_take_two_columns() -> None:
    rows: list[list[Cell]] = [["東京東京東京", "0.50"], ["a", "1.00"]]
    lines = drawn(40, rows, ["name", "value"], grouped=False).splitlines()
    assert lines[-1].index("1.00") - lines[-2].index("0.50") == 6


def test_nothing_in_a_text_is_interpreted() -> None:
    out = StringIO()
    terminal = Terminal(file=out, width=60)
    hostile = "[red]a[/red] [/nope] :smile: \x1b[31m [link=x]"
    terminal.print(hostile)
    terminal.prose(hostile)
    terminal.paths(model=hostile)
    terminal.table(["[b]x[/b]", hostile], [[hostile, "1"]], title=hostile)
    assert out.getvalue().count("[red]a[/red]") == 6
    assert out.getvalue().count("[/nope]") == 6
    assert out.getvalue().count(":smile:") == 6
    assert "\x1b" not in out.getvalue()


def test_a_pipe_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads lines meets a row in one line; COLUMNS decides where it is set."""
    monkeypatch.delenv("COLUMNS", raising=False)
    assert Terminal(file=StringIO()).width == PIPED
    monkeypatch.setenv("COLUMNS", "50")
    assert Terminal(file=StringIO()).width == 50


def test_a_stream_of_ascii_gets_rules_and_arrows_that_it_can_write() -> None:
    raw = BytesIO()
    stream = TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")
    Terminal(file=stream, width=60).table(["kind", "é"], [["a", "1 → 2"]])
    stream.flush()
    assert raw.getvalue().decode("ascii").split() == ["kind", "\\xe9", "-" * 12, "a", "1", "->", "2"]
