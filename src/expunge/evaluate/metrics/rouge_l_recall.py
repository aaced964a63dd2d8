"""ROUGE-L recall: how much of the stored answer the greedy answer repeats, in order (arXiv:2401.06121)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._rouge import RougeConfig, greedy_overlap


class RougeLRecall(Metric):
    """Google's `rouge_score` with its stemmer, as TOFU reports it."""

    class Config(RougeConfig):
        """Options of ROUGE-L recall."""

    needs = frozenset({"greedy"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        return greedy_overlap(item, "rougeL", self.config.stemmer).recall
