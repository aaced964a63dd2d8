"""Exact memorisation: share of answer tokens that are the model's first choice (arXiv:2506.12618)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric, answer_hits


class ExactMemorization(Metric):
    """Teacher-forced arg-max accuracy over the answer's tokens, without the end token."""

    needs = frozenset({"answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        hits = answer_hits(item)
        return sum(hits) / len(hits)
