"""Names of columns: which are known, and which are nearly."""

from __future__ import annotations

import dataclasses
import difflib
import re
from functools import cache

from expunge.core import plugins
from expunge.data.example import Example
from expunge.data.shapes.base import FOLDER, Shape

FIELDS = tuple(field.name for field in dataclasses.fields(Example))
"""Of a row, as a user names them."""

_BETWEEN_WORDS = re.compile(r"[\s-]+")
_SAME = 0.85
"""Similarity (difflib) from which a name is taken for a slip of the pen: `keyword`, `paraphrased_questions`."""
_ALIKE = 0.75
"""Similarity from which it is worth a warning; below lie `context` and `text` (0.73)."""
_SHORTEST = 5
"""Letters of a name that counts as the beginning of a longer one: `paraphrase`."""
_OWN_MEANING = re.compile(r"_(ids?|idx|index|type|source|len|length|lang|language|url)$")
"""Endings that make another thing of a name: `question_id` is no question."""


@cache
def canonical(name: str) -> str:
    """`Paraphrased Question` -> `paraphrased_question`, if that is a known name; any other name as it is."""
    folded = _BETWEEN_WORDS.sub("_", name.strip()).casefold()
    return folded if is_known(folded) else name


def is_known(name: str) -> bool:
    """Whether a column of this name is read."""
    return name in _known()


@cache
def slip_of(name: str) -> str | None:
    """The known name that this one is almost certainly meant for."""
    return _nearest(name, _SAME)


def alike(name: str) -> str | None:
    """The known name that this one resembles, or begins."""
    folded = _BETWEEN_WORDS.sub("_", name.strip()).casefold()
    begun = [known for known in FIELDS if len(folded) >= _SHORTEST and known.startswith(folded)]
    return begun[0] if begun else _nearest(name, _ALIKE)


def _nearest(name: str, similarity: float) -> str | None:
    folded = _BETWEEN_WORDS.sub("_", name.strip()).casefold()
    if _OWN_MEANING.search(folded):
        return None
    found = difflib.get_close_matches(folded, sorted(_known()), n=1, cutoff=similarity)
    return found[0] if found else None


@cache
def shapes() -> tuple[Shape, ...]:
    """All layouts, by name."""
    return tuple(plugins.find(FOLDER, name, Shape)() for name in plugins.names(FOLDER))  # type: ignore[type-abstract]


@cache
def _known() -> frozenset[str]:
    return frozenset(FIELDS).union(*(shape.columns for shape in shapes()))
