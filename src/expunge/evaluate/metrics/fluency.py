"""Fluency: entropy of the greedy answer's word pairs and triples (arXiv:2406.10890)."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache
from typing import Any

from expunge.core.records import Better
from expunge.data.languages import is_unspaced
from expunge.evaluate.base import Absent, Item, Metric, require_text

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Fluency(Metric):
    """`(2/3 H2 + 4/3 H3) / 2`: Hn is the entropy, in bits, of the answer's word n-grams.

    Low for an answer that repeats itself, and for a short one: compare answers of one length. The words are those of
    nltk's Treebank tokenizer, sentence by sentence; a sentence ends at a mark followed by a space, also within an
    abbreviation.
    """

    needs = frozenset({"greedy"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """At least 0, in bits.

        Raises:
            Absent: an answer of fewer than three words, or in a script without spaces between them.
        """
        text = require_text(item.greedy, "greedy answer")
        if is_unspaced(text):
            raise Absent("text in a script without spaces between words")
        words = tokenise(text)
        if len(words) < 3:
            raise Absent("answers of fewer than three words")
        return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2

    def better(self, split: str) -> Better:
        """A forgetful model should still speak, so higher everywhere."""
        return "higher"


def tokenise(text: str) -> list[str]:
    """Words and marks of a text."""
    sentences = _SENTENCE_END.split(text.strip())
    return [word for sentence in sentences for word in _tokenizer().tokenize(sentence)]


def _entropy(words: list[str], n: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = len(words) - n + 1
    return -sum(count / total * math.log2(count / total) for count in counts.values())


@cache
def _tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()
