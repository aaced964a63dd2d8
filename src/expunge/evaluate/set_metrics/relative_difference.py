"""Relative difference: membership AUC against the retrained model's, in percent of the latter (arXiv:2407.06460)."""

from __future__ import annotations

from expunge.core.records import Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.set_metrics._against_retrained import AgainstRetrainedConfig, against_retrained


class RelativeDifference(SetMetric):
    """`100 (A - A_retrained) / A_retrained`: OpenUnlearning's `rel_diff`. Positive: more like members than wanted."""

    class Config(AgainstRetrainedConfig):
        """Options of the relative difference."""

    roles = ("forget", "holdout")

    def __init__(self, config: AgainstRetrainedConfig) -> None:
        super().__init__(config)
        self.needs_values = (config.attack,)

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """`relative_difference`, in percent."""
        score = against_retrained(
            self.config, values, reference, seed, lambda mine, retrained: (mine - retrained, retrained)
        )
        return {"relative_difference": score}
