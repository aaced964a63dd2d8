"""Lists that a library wrote into a text cell: JSON, Python's own form (pandas), or numpy's (datasets)."""

from __future__ import annotations

import ast
import json
import re
import warnings

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"""
    r"""|(?P<name>[A-Za-z_][\w.]*)|(?P<mark>[][(){},:=]))""",
    re.DOTALL,
)
_NAMES = {"None": None, "null": None, "nan": None, "True": True, "true": True, "False": False, "false": False}
_ARRAY = re.compile(r"array|(np|numpy)\.\w+")
_CLOSING = {"[": "]", "(": ")"}


class UnreadableError(ValueError):
    """A cell that begins like a list, and is none."""


def structure(cell: str) -> object:
    """The list or object that a cell spells out.

    `['a' 'b']` is two texts, as numpy prints them; Python would read it as one.

    Raises:
        UnreadableError: it is nothing of the kind, cut short (`...`), or not certain.
    """
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        pass
    try:
        reader = _Reader(cell)
        value = reader.value()
        reader.end()
    except RecursionError:
        raise UnreadableError("nested too deeply") from None
    return value


class _Reader:
    """Reads one value after another from the front of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def end(self) -> None:
        if self._text[self._place :].strip():
            raise UnreadableError(f"nothing is expected at character {self._place}")

    def value(self) -> object:
        kind, token = self._next()
        if kind == "text":
            return _unquoted(token)
        if kind == "number":
            return float(token) if any(mark in token for mark in ".eE") else int(token)
        if kind == "name":
            return _NAMES[token] if token in _NAMES else self._call(token)
        if token in _CLOSING:
            return self._list(_CLOSING[token])
        if token == "{":
            return self._object()
        raise UnreadableError(f"'{token}' is not expected at character {self._place}")

    def _list(self, closing: str) -> list[object]:
        items: list[object] = []
        commas: list[bool] = []
        while self._peek() != closing:
            items.append(self.value())
            commas.append(self._peek() == ",")
            if commas[-1]:
                self._next()
        self._next()
        if len(set(commas[:-1])) > 1:
            raise UnreadableError("some items are separated by commas and some are not")
        return items

    def _object(self) -> dict[str, object]:
        found: dict[str, object] = {}
        while self._peek() != "}":
            key = self.value()
            if not isinstance(key, str) or self._next()[1] != ":":
                raise UnreadableError("an object needs names and values")
            found[key] = self.value()
            if self._peek() not in (",", "}"):
                raise UnreadableError("a comma is missing in an object")
            if self._peek() == ",":
                self._next()
        self._next()
        return found

    def _call(self, name: str) -> object:
        """`array([...], dtype=object)` and `np.str_('a')`: what is in it."""
        if not _ARRAY.fullmatch(name) or self._next()[1] != "(":
            raise UnreadableError("a word without quotes")
        found = self.value()
        while self._peek() == ",":
            if [self._next()[0], self._next()[0], self._next()[1]] != ["mark", "name", "="]:
                raise UnreadableError("more than one value")
            self._next()
        if self._next()[1] != ")":
            raise UnreadableError("a bracket is missing")
        return found

    def _peek(self) -> str:
        match = _TOKEN.match(self._text, self._place)
        return match.group(0).strip() if match else ""

    def _next(self) -> tuple[str, str]:
        match = _TOKEN.match(self._text, self._place)
        if match is None or match.lastgroup is None:
            raise UnreadableError(f"not readable from character {self._place}")
        self._place = match.end()
        return match.lastgroup, match.group(match.lastgroup)


def _unquoted(token: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return str(ast.literal_eval(token))
        except (SyntaxError, ValueError, Warning):
            raise UnreadableError("a text with a broken escape or line") from None
