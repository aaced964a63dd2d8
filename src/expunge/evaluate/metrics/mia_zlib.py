"""Zlib attack: mean token loss over what the text compresses to (arXiv:2012.07805)."""

from __future__ import annotations

import zlib

from expunge.evaluate.base import Item, Metric, mean_nll
from expunge.evaluate.metrics._answer import text_of


class ZlibAttack(Metric):
    """Mean token loss of the answer over the bytes that zlib makes of its UTF-8 text.

    A repetitive text is easy for every model: that is no sign of membership.
    """

    title = "MIA zlib"
    needs = frozenset({"answer"})
    knowledge = "less"
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """At least 0, in nats a byte."""
        return mean_nll(item.answer, "an answer") / len(zlib.compress(text_of(item).encode()))
