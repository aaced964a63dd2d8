"""Keyword recall: does the greedy answer hold the fact's keyword?"""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric, holds_keyword, require_text


class KeywordRecall(Metric):
    """Share of rows whose greedy answer holds any of the row's keywords as whole words."""

    needs = frozenset({"greedy"})
    yes_or_no = True
    chance = 0.0

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        return float(holds_keyword(require_text(item.greedy, "greedy answer"), item.example.keywords))
