"""Word overlap with a stored text, shared by metrics."""

from __future__ import annotations

from typing import NamedTuple

from expunge.data.rouge import Unit, scorer


class Overlap(NamedTuple):
    """Shares in [0, 1]."""

    recall: float
    f1: float


def overlap(target: str, text: str, unit: Unit, stemmer: bool = True) -> Overlap:
    """ROUGE: words of the target that the text has (`rouge1`), or has in the same order (`rougeL`).

    Args:
        target: the stored text.
        text: what was said.
        unit: what is counted.
        stemmer: compare stems of English words.
    """
    found = scorer(unit, stemmer).score(target, text)[unit]
    return Overlap(float(found.recall), float(found.fmeasure))


def rouge_l_recall(target: str, text: str) -> float:
    """Share, in [0, 1], of the target's words that the text repeats in order, with the stemmer."""
    return overlap(target, text, "rougeL").recall
