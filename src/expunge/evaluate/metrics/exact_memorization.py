"""Exact memorisation: share of answer tokens that are the model's first choice (arXiv:2506.12618)."""

from __future__ import annotations

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._answer import OU_COMPAT, num_text_labels, scored_of


class ExactMemorization(Metric):
    """Teacher-forced arg-max accuracy over the answer's tokens, without the end token."""

    class Config(Frozen):
        """Options of exact memorisation."""

        ou_compat: bool = Field(
            False, description=f"{OU_COMPAT}the last token of a document is left out like an end token"
        )

    meaning = "Share of the stored answer's tokens that are the model's first choice."
    needs = frozenset({"answer"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        count = num_text_labels(item, self.config.ou_compat)
        return sum(scored_of(item).hit[:count]) / count
