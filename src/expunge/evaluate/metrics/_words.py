"""Short answers compared as the question-answering benchmarks do."""

from __future__ import annotations

import re
import string

from expunge.evaluate.base import Item, require_text

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_MARKS = str.maketrans("", "", string.punctuation)


def bare(text: str) -> list[str]:
    """Words without case, marks and articles: `The U.S.!` -> `us`."""
    return _ARTICLE.sub(" ", text.lower().translate(_NO_MARKS)).split()


def accepted(item: Item) -> list[list[str]]:
    """Every answer that counts as right: the stored one, and the keywords.

    Raises:
        Absent: the row has none.
    """
    return [bare(text) for text in (require_text(item.example.answer, "answer"), *item.example.keywords)]
