"""UDS: would the unlearned model's states make the original one lose the answer? (arXiv:2605.24614)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen
from expunge.evaluate.whitebox._scores import GapMeasure
from expunge.evaluate.whitebox.base import Observed
from expunge.models.patching import patch
from expunge.numerics.intervals import Numbers


class UnlearningDepthScore(GapMeasure):
    """Patches the block outputs of another model into the original where the answer's tokens are predicted.

    For each block l, `gap_l(S) = s - s(l <- S)`, with s the mean log-probability of the tokens under the original
    model. The score is the share of the retrained model's gaps that the unlearned model has, over the blocks whose
    retrained gap is above the threshold. Rows without such a block are left out.
    """

    class Config(Frozen):
        """Options of the unlearning depth score."""

        threshold: float = Field(0.05, ge=0, description="Blocks count whose retrained states cost more nats than this")

    def gaps(self, original: Observed, row: int, states: Sequence[Tensor]) -> Numbers:
        """Cost of each patch."""
        return patch(original.model, original.rows[row], states).gaps
