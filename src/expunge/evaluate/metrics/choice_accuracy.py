"""Choice accuracy: is the right option the model's first choice? (arXiv:2009.03300)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.evaluate.base import Item, Metric
from expunge.evaluate.metrics._choice import takes_right_option


class ChoiceAccuracy(Metric):
    """Share of multiple-choice rows whose right option's letter is the most likely of all letters, as in lm-eval.

    Chance is 1 / options, where all rows of a pass have equally many.
    """

    meaning = "Share of multiple-choice questions whose right option is the model's first choice."
    needs = frozenset({"choices"})
    yes_or_no = True

    def prepare(self, evidence: Mapping[str, Sequence[Item]]) -> None:
        """Find the accuracy of a random guess."""
        counts = {len(item.choice_logp) for items in evidence.values() for item in items if item.choice_logp}
        self.chance = 1 / counts.pop() if len(counts) == 1 else None

    def value(self, item: Item, split: str) -> float:
        """0 or 1."""
        return float(takes_right_option(item))
