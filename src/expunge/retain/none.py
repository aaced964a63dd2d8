"""None: no loss on retain rows, for a run of 0 epochs whose edit does all of the forgetting."""

from __future__ import annotations

from torch import Tensor

from expunge.losses.base import View
from expunge.retain.base import RetainLoss


class NoRetain(RetainLoss):
    """No loss; a run that trains refuses it. Retain rows are still what the edit and the guard compare with."""

    trains = False

    def loss(self, view: View) -> Tensor:
        """Never called."""
        raise AssertionError("a run that trains refuses this filler")
