"""Reference attack: mean token loss less that of a model that never saw the row (arXiv:2111.08440)."""

from __future__ import annotations

from expunge.evaluate.base import Absent, Item, Metric, mean_nll


class ReferenceAttack(Metric):
    """Mean token loss of the answer, less the same under the reference model: what is easy for both is no evidence."""

    title = "MIA reference"
    needs = frozenset({"answer"})
    knowledge = "less"
    opt_in = True
    reference = "retrained"

    def value(self, item: Item, split: str) -> float:
        """Any number, in nats."""
        if item.reference is None:
            raise Absent("no reference model was asked about these rows")
        return mean_nll(item.answer, "an answer") - mean_nll(item.reference.answer, "an answer of the reference")
