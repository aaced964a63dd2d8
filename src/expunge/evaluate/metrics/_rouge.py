"""What the ROUGE metrics share."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from expunge.core.records import Frozen
from expunge.data.rouge import Unit, scorer
from expunge.data.text import has_content
from expunge.evaluate.base import Absent, Item, require_text, right_texts


class RougeConfig(Frozen):
    """Options of a ROUGE metric; `evaluate.reference_tokens` cuts what is compared with."""

    stemmer: bool = Field(True, description="Compare word stems, as TOFU and OpenUnlearning do; MUSE compares words")


class Overlap(NamedTuple):
    """Shares in [0, 1]."""

    recall: float
    f1: float


def overlap(target: str, text: str, unit: Unit, stemmer: bool = True) -> Overlap:
    """ROUGE of a text against a target: shared words (`rouge1`), or words shared in the same order (`rougeL`).

    Args:
        target: the stored text.
        text: the answer.
        unit: what is counted.
        stemmer: compare stems of English words.
    """
    found = scorer(unit, stemmer).score(target, text)[unit]
    return Overlap(float(found.recall), float(found.fmeasure))


def greedy_overlap(item: Item, unit: Unit, stemmer: bool) -> Overlap:
    """The best recall and the best F1 of the greedy answer against the stored and the accepted answers.

    Raises:
        Absent: an answer is missing, or has no words.
    """
    text = require_text(item.greedy, "greedy answer")
    found = [overlap(right, text, unit, stemmer) for right in right_texts(item) if has_content(right)]
    if not found:
        raise Absent("stored answers without a word")
    return Overlap(max(one.recall for one in found), max(one.f1 for one in found))
