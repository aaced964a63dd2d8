"""ROUGE over words of every script: Google's `rouge_score` with our words instead of its ASCII words."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from expunge.data.text import words

Unit = Literal["rouge1", "rougeL"]
"""Words in any order, or in order."""


@cache
def scorer(unit: Unit, stemmer: bool = True) -> Any:
    """A `RougeScorer` of one unit.

    Args:
        unit: what is counted.
        stemmer: compare the English stems of words of more than three letters, as `rouge_score` does.
    """
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([unit], tokenizer=_Words(stemmer))


class _Words:
    """The tokenizer that `rouge_score` asks for."""

    def __init__(self, stemmer: bool) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem if stemmer else None

    def tokenize(self, text: str) -> list[str]:
        found = words(text)
        if self._stem is None:
            return found
        return [self._stem(word) if len(word) > 3 and word.isascii() else word for word in found]
