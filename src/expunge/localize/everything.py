"""Everything: all weights are trained."""

from __future__ import annotations

from expunge.core.records import Frozen
from expunge.data.splits import Splits
from expunge.localize.base import Localizer, Selection
from expunge.models.base import LanguageModel


class Everything(Localizer):
    """Full fine-tuning; with an adapter, every linear layer of the blocks gets one."""

    class Config(Frozen):
        """No options."""

    def select(self, model: LanguageModel, splits: Splits, seed: int) -> Selection:
        """All parameters."""
        return Selection(tuple(name for name, _ in model.network.named_parameters()))
