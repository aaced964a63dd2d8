"""Word overlap with a stored text, shared by metrics."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple


class Overlap(NamedTuple):
    """Shares in [0, 1]."""

    recall: float
    f1: float


def overlap(target: str, text: str, unit: Literal["rouge1", "rougeL"], stemmer: bool = True) -> Overlap:
    """Google's `rouge_score`: words of the target that the text has (`rouge1`), or has in the same order (`rougeL`)."""
    found = _scorer(unit, stemmer).score(target, text)[unit]
    return Overlap(float(found.recall), float(found.fmeasure))


def rouge_l_recall(target: str, text: str) -> float:
    """Share, in [0, 1], of the target's words that the text repeats in order, with the stemmer."""
    return overlap(target, text, "rougeL").recall


@cache
def _scorer(unit: str, stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([unit], use_stemmer=stemmer)
