"""What the ROUGE metrics share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Item, require_text, stored_text
from expunge.evaluate.overlap import Overlap, overlap


class RougeConfig(Frozen):
    """Options of a ROUGE metric; `evaluate.reference_tokens` cuts what is compared with."""

    stemmer: bool = Field(True, description="Compare word stems, as TOFU and OpenUnlearning do; MUSE compares words")


def greedy_overlap(item: Item, unit: Literal["rouge1", "rougeL"], stemmer: bool) -> Overlap:
    """Overlap of the greedy answer with the stored one.

    Raises:
        Absent: either is missing.
    """
    return overlap(stored_text(item), require_text(item.greedy, "greedy answer"), unit, stemmer)
