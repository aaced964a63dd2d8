"""ROUGE-L recall: how much of the stored answer the greedy answer repeats, in order (arXiv:2401.06121)."""

from __future__ import annotations

from typing import Any

from expunge.evaluate.base import Item, Metric, require_text


class RougeLRecall(Metric):
    """Google's `rouge_score` with its stemmer, as TOFU reports it."""

    needs = frozenset({"greedy"})

    def __init__(self, config: Any) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        super().__init__(config)
        self._scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        target = require_text(item.example.answer or item.continuation, "answer")
        return float(self._scorer.score(target, require_text(item.greedy, "greedy answer"))["rougeL"].recall)
