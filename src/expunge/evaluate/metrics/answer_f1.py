"""Answer F1: words that greedy and stored answer share, in any order (arXiv:1705.03551)."""

from __future__ import annotations

from collections import Counter

from expunge.evaluate.base import Item, Metric, require_text
from expunge.evaluate.metrics._words import accepted, bare


class AnswerF1(Metric):
    """Harmonic mean of precision and recall of words, against the best of stored answer, accepted ones and keywords.

    Case, marks and articles do not count.
    """

    title = "answer F1"
    needs = frozenset({"greedy"})
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        said = bare(require_text(item.greedy, "greedy answer"))
        return max(_f1(said, right) for right in accepted(item))


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return 0.0
    shared = (Counter(said) & Counter(right)).total()
    return 2 * shared / (len(said) + len(right))
