"""ROUGE-L recall: how much of the stored answer the greedy answer repeats, in order (arXiv:2401.06121)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric, require_text
from expunge.evaluate.overlap import rouge_l_recall


class RougeLRecall(Metric):
    """Google's `rouge_score` with its stemmer, as TOFU reports it."""

    needs = frozenset({"greedy"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        target = require_text(item.example.answer or item.continuation, "answer")
        return rouge_l_recall(target, require_text(item.greedy, "greedy answer"))
