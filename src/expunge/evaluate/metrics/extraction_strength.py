"""Extraction strength: share of the answer that the model completes once given its start (arXiv:2402.14015)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import OU_COMPAT, num_text_labels, scored_of


class ExtractionStrength(Metric):
    """`1 - k/N`: k is the smallest start after which every token is the model's first choice, N the answer's length.

    0 when even the last token is missed, 1 when nothing has to be given. The end token does not count.
    """

    class Config(Frozen):
        """Options of extraction strength."""

        ou_compat: bool = Field(
            False,
            description=f"{OU_COMPAT}1/N where even the last token is missed, and the last token of a document is left "
            "out like an end token",
        )

    meaning = "Share of the stored answer that the model completes word for word from its beginning."
    needs = frozenset({"answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        count = num_text_labels(item, self.config.ou_compat)
        hits = scored_of(item).hit
        start = next((index for index in range(count, 0, -1) if not hits[index - 1]), 0)
        return 1 - (min(start, count - 1) if self.config.ou_compat else start) / count
