"""Exact match: is the greedy answer, or what it concludes, the stored one? (arXiv:2210.09261)."""

from __future__ import annotations

import re

from pydantic import Field

from expunge.core.records import Frozen
from expunge.evaluate.base import Item, Metric, require_text
from expunge.evaluate.metrics._words import accepted, bare

_STOP = r"(?:\.(?!\S)|[\u3002\uff0e\u0964]|$)"
"""A full stop, and not the point of a number or an abbreviation."""


class ExactMatch(Metric):
    """Share of rows whose greedy answer is the stored one, an accepted one or a keyword; case and articles aside."""

    class Config(Frozen):
        """Options of the exact match."""

        after: str = Field(
            "",
            description="Only what stands between these words, whatever their case, and the next full stop; all of the "
            'answer where they are not said. BIG-Bench Hard: "the answer is"',
        )

    needs = frozenset({"greedy"})
    yes_or_no = True
    opt_in = True

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        said = require_text(item.greedy, "greedy answer")
        if self.config.after and (
            found := re.search(rf"{re.escape(self.config.after)}\s*(.*?){_STOP}", said, re.IGNORECASE | re.DOTALL)
        ):
            said = found[1]
        words = bare(said)
        return float(bool(words) and words in accepted(item))
