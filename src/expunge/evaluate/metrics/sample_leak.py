"""Sample leak: does any of several sampled answers hold the keyword?"""

from __future__ import annotations

from expunge.evaluate.base import Absent, Item, Metric, holds_keyword


class SampleLeak(Metric):
    """Share of rows for which at least one sampled answer holds a keyword: greedy silence is not ignorance."""

    needs = frozenset({"samples"})
    yes_or_no = True
    chance = 0.0

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        if not item.samples:
            raise Absent("this split is not probed (evaluate.probe_splits)")
        return float(any(holds_keyword(sample, item.example.keywords) for sample in item.samples))
