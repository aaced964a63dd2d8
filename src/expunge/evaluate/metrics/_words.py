"""Short answers compared as the question-answering benchmarks do."""

from __future__ import annotations

from expunge.data.text import joined_words
from expunge.evaluate.base import Item, require_text

_ARTICLES = ("a", "an", "the")


def bare(text: str) -> list[str]:
    """Words without case, marks and articles: `The U.S.!` -> `us`; an answer that is an article stays: `(A)` -> `a`."""
    found = joined_words(text)
    return [word for word in found if word not in _ARTICLES] or found


def accepted(item: Item) -> list[list[str]]:
    """Every answer that counts as right: the stored one, those accepted beside it, and the keywords.

    Raises:
        Absent: the row has none.
    """
    example = item.example
    return [
        bare(text) for text in (require_text(example.answer, "answer"), *example.accepted_answers, *example.keywords)
    ]
