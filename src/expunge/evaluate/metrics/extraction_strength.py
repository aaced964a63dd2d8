"""Extraction strength: share of the answer that the model completes once given its start (arXiv:2402.14015)."""

from __future__ import annotations

from expunge.evaluate.base import Item, Metric, answer_hits


class ExtractionStrength(Metric):
    """`1 - k/N`: k is the smallest start after which every token is the model's first choice, N the answer's length.

    0 when even the last token is missed (OpenUnlearning's code gives 1/N there), 1 when nothing has to be given.
    """

    needs = frozenset({"answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        hits = answer_hits(item)
        start = next((index for index in range(len(hits), 0, -1) if not hits[index - 1]), 0)
        return 1 - start / len(hits)
