"""Repetition: share of repeated word triples in the greedy answer, the mark of a collapsed model (arXiv:1908.04319)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import Frozen
from expunge.data.text import chunks
from expunge.evaluate.base import Item, Metric, require_text


class Repetition(Metric):
    """`1 - distinct n-grams / n-grams` over words, 0 for an answer of fewer than n (seq-rep-n).

    In scripts without spaces a character counts as a word.
    """

    class Config(Frozen):
        """Options of repetition."""

        n: int = Field(3, ge=1, description="Words in an n-gram")

    meaning = "Share of the generated text that repeats itself: damage shows here early."
    needs = frozenset({"greedy"})
    knowledge = "none"

    def value(self, item: Item, split: str) -> float:
        """In [0, 1)."""
        words = chunks(require_text(item.greedy, "greedy answer"))
        grams = [tuple(words[start : start + self.config.n]) for start in range(len(words) - self.config.n + 1)]
        return 1 - len(set(grams)) / len(grams) if grams else 0.0
