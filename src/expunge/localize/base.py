"""The contract of a localizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from expunge.core.records import Frozen, LayerCurve
from expunge.data.splits import Splits
from expunge.models.base import LanguageModel


@dataclass(frozen=True)
class Selection:
    """The parameters to train, and the evidence for the choice."""

    names: tuple[str, ...]
    """Parameter names, in the model's order."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Measurements behind the choice, as plain JSON values; `layers` lists the chosen blocks."""
    curves: tuple[LayerCurve, ...] = ()
    """One value per block, if the choice is based on such values."""


class Localizer(ABC):
    """Chooses the weights to train."""

    class Config(Frozen):
        """Options of the localizer."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def select(self, model: LanguageModel, splits: Splits, seed: int) -> Selection:
        """Names of the parameters to train."""
