"""None: no loss on forget rows, for a run of 0 epochs whose edit does all of the forgetting."""

from __future__ import annotations

from torch import Tensor

from expunge.forget.base import ForgetLoss
from expunge.losses.base import View


class NoForget(ForgetLoss):
    """No loss; a run that trains refuses it."""

    trains = False

    def loss(self, view: View) -> Tensor:
        """Never called."""
        raise AssertionError("a run that trains refuses this filler")
