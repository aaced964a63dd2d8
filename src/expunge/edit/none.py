"""None: training starts from the model as it is."""

from __future__ import annotations

from expunge.edit.base import Advance, Edit
from expunge.losses.base import Setup


class NoEdit(Edit):
    """No edit."""

    changes = False

    def apply(self, forget: Setup, retain: Setup, advance: Advance) -> None:
        """Leave the weights as they are."""
