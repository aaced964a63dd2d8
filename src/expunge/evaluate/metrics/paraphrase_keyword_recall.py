"""Paraphrase keyword recall: does the model still say the fact when asked in other words?"""

from __future__ import annotations

from expunge.data.example import holds_any
from expunge.evaluate.base import Item, Metric, require_text
from expunge.evaluate.keywords import required_keywords


class ParaphraseKeywordRecall(Metric):
    """Share of rows whose greedy answer to the paraphrased question holds a keyword."""

    meaning = "Keyword recall when the same question is asked in other words."
    headline = 3
    probe = "paraphrased questions"
    leak_mark = "leaks when reworded"
    needs = frozenset({"paraphrased_greedy"})
    yes_or_no = True
    chance = 0.0

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        text = require_text(item.paraphrased_greedy, "paraphrased_question, or no probe (evaluate.probe_splits),")
        return float(holds_any(text, required_keywords(item, item.example.paraphrased_question), item.match))
