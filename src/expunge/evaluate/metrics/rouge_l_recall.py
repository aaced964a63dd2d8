"""ROUGE-L recall: how much of the stored answer the greedy answer repeats, in order (arXiv:2401.06121)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._rouge import RougeConfig, greedy_overlap


class RougeLRecall(Metric):
    """Google's `rouge_score` with its stemmer, as TOFU reports it."""

    class Config(RougeConfig):
        """Options of ROUGE-L recall."""

    title = "ROUGE-L recall"
    meaning = "Share of the stored answer's words that the model's answer repeats in the same order."
    headline = 4
    utility = True
    probe = "word overlap with the stored answer"
    needs = frozenset({"greedy"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        return greedy_overlap(item, "rougeL", self.config.stemmer).recall
