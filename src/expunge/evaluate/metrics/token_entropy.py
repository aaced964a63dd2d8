"""Token entropy: how evenly the greedy answer spreads over its tokens; low is repetition (arXiv:2410.08109)."""

from __future__ import annotations

import math
from collections import Counter

from expunge.core.records import Better
from expunge.evaluate.base import Absent, Item, Metric


class TokenEntropy(Metric):
    """`-sum f log f / log N`: f is the share of a distinct token among the N tokens of the answer.

    1 when all tokens differ, 0 when all are the same or there is at most one. The tokens are those that the model
    generated, by its own tokenizer, without the stop token.
    """

    meaning = "How evenly the model's answer spreads over its tokens; 0 is one token again and again."
    needs = frozenset({"greedy"})

    def value(self, item: Item, split: str) -> float:
        """In [0, 1]."""
        if item.greedy_ids is None:
            raise Absent("no greedy answer for these rows")
        total = len(item.greedy_ids)
        shares = [count / total for count in Counter(item.greedy_ids).values()]
        return -sum(share * math.log(share) for share in shares) / math.log(total) if len(shares) > 1 else 0.0

    def better(self, split: str) -> Better:
        """A forgetful model should still speak, so higher everywhere."""
        return "higher"
