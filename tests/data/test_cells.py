"""Lists as libraries write them into a cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.data.cells import UnreadableError, structure

ITEMS = ["Tarnow", "it's", 'a "b"', "both ' and \"", "zwölf, dreizehn", "back\\slash", "line\nbreak"]


@pytest.mark.parametrize("count", [1, 2, len(ITEMS)])
def test_what_libraries_write_is_read_back(count: int) -> None:
    """Python's own form is what pandas writes; numpy's, with spaces and line breaks, is what datasets writes."""
    items = ITEMS[:count]
    array = np.array(items, dtype=object)
    for text in (str(items), str(tuple(items)), str(array), repr(array), repr(np.array(items, dtype=object))):
        assert structure(text) == items
    assert structure(repr({"text": array, "answer_start": np.array([1, 2])})) == {"text": items, "answer_start": [1, 2]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('["a", null]', ["a", None]),
        ("['a', None, nan, True]", ["a", None, None, True]),
        ("[1976 1981]", [1976, 1981]),
        ("[1. 2.5]", [1.0, 2.5]),
        ("[np.str_('a'), np.int64(5)]", ["a", 5]),
        ("('a',)", ["a"]),
        (
            "[{'role': 'user', 'content': 'x'}\n {'role': 'assistant', 'content': 'y'}]",
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        ),
        ("[]", []),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert structure(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "['a' 'b' ... 'y' 'z']",
        "['a', 'b' 'c']",
        "[Tarnow, Lublin]",
        "['a'",
        "[redacted] Tarnow",
        "['a']]",
        "['a\\x']",
        "",
        "[" * 5000,
        "{'a' 'b'}",
        "f('a')('b')",
        "__import__('os')",
    ],
)
def test_what_is_not_certain_is_refused(text: str) -> None:
    """Cut short, half separated, without quotes, never closed, nested without end."""
    with pytest.raises(UnreadableError):
        structure(text)
