"""Word overlap with a stored text, shared by metrics."""

from __future__ import annotations

from functools import cache
from typing import Any


def rouge_l_recall(target: str, text: str) -> float:
    """Share, in [0, 1], of the target's words that the text repeats in order; Google's `rouge_score` with stemmer."""
    return float(_scorer().score(target, text)["rougeL"].recall)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)
