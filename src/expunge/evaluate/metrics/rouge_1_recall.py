"""ROUGE-1 recall: how many of the stored answer's words the greedy answer has (arXiv:2506.12618)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._rouge import RougeConfig, greedy_overlap


class RougeOneRecall(Metric):
    """Google's `rouge_score` over single words, in whatever order."""

    class Config(RougeConfig):
        """Options of ROUGE-1 recall."""

    title = "ROUGE-1 recall"
    needs = frozenset({"greedy"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        return greedy_overlap(item, "rouge1", self.config.stemmer).recall
