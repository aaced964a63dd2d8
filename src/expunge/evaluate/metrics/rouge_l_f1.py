"""ROUGE-L F1: overlap in order of greedy and stored answer, length counting too (arXiv:2407.06460)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._rouge import RougeConfig, greedy_overlap


class RougeLF1(Metric):
    """Harmonic mean of precision and recall of the longest common subsequence of words, as MUSE reports it."""

    class Config(RougeConfig):
        """Options of ROUGE-L F1."""

    title = "ROUGE-L F1"
    needs = frozenset({"greedy"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        return greedy_overlap(item, "rougeL", self.config.stemmer).f1
