"""Privacy leak: membership AUC against that of the retrained model, 0 when they agree (arXiv:2407.06460)."""

from __future__ import annotations

from expunge.core.records import Score
from expunge.evaluate.base import SetMetric, SetValues
from expunge.evaluate.set_metrics._against_retrained import AgainstRetrainedConfig, against_retrained


class PrivLeak(SetMetric):
    """`100 ((1 - A) - (1 - A_retrained)) / (1 - A_retrained)`, A the AUC of Min-K% over forget and holdout rows.

    Negative: the forget rows still look like members (an untouched model comes near -100); positive: over-unlearned.
    MUSE writes the same with the complement of A.
    """

    class Config(AgainstRetrainedConfig):
        """Options of the privacy leak."""

    title = "privacy leak"
    meaning = "Membership against the retrained model's, in percent: 0 agrees, below still looks like a member."
    roles = ("forget", "holdout")

    def __init__(self, config: AgainstRetrainedConfig) -> None:
        super().__init__(config)
        self.needs_values = (config.attack,)

    def scores(
        self, values: SetValues, reference: SetValues | None, seed: int, original: SetValues | None = None
    ) -> dict[str, Score]:
        """`privleak`, in percent."""
        score = against_retrained(
            self.config, values, reference, seed, lambda mine, retrained: (retrained - mine, 1 - retrained)
        )
        return {"privleak": score}
