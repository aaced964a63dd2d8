"""Keyword recall: does the greedy answer hold the fact's keyword?"""

from __future__ import annotations

from expunge.data.example import holds_any
from expunge.evaluate.base import Item, Metric, require_text
from expunge.evaluate.keywords import required_keywords


class KeywordRecall(Metric):
    """Share of rows whose greedy answer holds any of the row's keywords that its question does not hold."""

    meaning = "Share of questions whose most likely answer holds the keyword or (evaluate.match) its forms."
    headline = 1
    utility = True
    probe = "the questions as given, answered greedily"
    leak_mark = "leaks"
    needs = frozenset({"greedy"})
    yes_or_no = True
    chance = 0.0

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        return float(holds_any(require_text(item.greedy, "greedy answer"), required_keywords(item), item.match))
