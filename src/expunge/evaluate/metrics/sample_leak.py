"""Sample leak: does any of several sampled answers hold the keyword?"""

from __future__ import annotations

from expunge.data.example import holds_any
from expunge.evaluate.base import Absent, Item, Metric
from expunge.evaluate.keywords import required_keywords


class SampleLeak(Metric):
    """Share of rows for which at least one sampled answer holds a keyword: greedy silence is not ignorance."""

    meaning = "Share of questions where one or more of several answers, drawn at temperature 1, hold the keyword."
    headline = 2
    probe = "sampled answers at temperature 1"
    leak_mark = "a sample leaks"
    needs = frozenset({"samples"})
    yes_or_no = True
    chance = 0.0

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        if not item.samples:
            raise Absent("this split is not probed (evaluate.probe_splits)")
        keywords = required_keywords(item)
        return float(any(holds_any(sample, keywords, item.match) for sample in item.samples))
