"""What a measure of depth is: it looks at three models, one after another, and compares what it kept of them.

The original model knows the forget rows, the retrained one never saw them, and the unlearned one is asked how far it is
on the way: 0 where it is still the original inside, 1 where it is like the retrained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from expunge.core.records import Frozen, Score
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import label_states
from expunge.models.tensor_store import RowStore, StateMemory
from expunge.numerics.intervals import Clusters

Stage = Literal["original_first", "retrained", "unlearned", "original"]
"""A model at its turn. The original one has two, for measures that must know it before the others, or after; between
them any number of unlearned models have theirs."""


class Look:
    """One model at its turn, with the rows; what several measures ask of it is computed once.

    Args:
        model: in memory for this turn only.
        rows: forget rows as tokens; their labels are the tokens that count.
        label: tells unlearned models apart.
        memory: what the states of all models may use together; None: as much for each as its own.
    """

    def __init__(
        self, model: LanguageModel, rows: Sequence[Encoded], label: str = "", memory: StateMemory | None = None
    ) -> None:
        self.model = model
        self.rows = rows
        self.label = label
        self.memory = memory or model.state_memory

    @cached_property
    def states(self) -> RowStore:
        """For each row, (L, N, D) what L blocks give where its N labels are predicted, float32 on the CPU."""
        return label_states(self.model, self.rows, memory=self.memory)


class Depth(ABC):
    """How far the unlearned model is from the original one to the retrained one, inside."""

    class Config(Frozen):
        """Options of the measure."""

    stages: ClassVar[tuple[Stage, ...]]
    """The turns at which it wants to look; a turn that nobody wants is left out, and its model is not loaded for it."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def look(self, stage: Stage, look: Look) -> None:
        """Keep what will be needed of a model; the model itself must be let go of."""

    @abstractmethod
    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """The result of an unlearned model, after all turns: higher means deeper forgetting.

        Args:
            label: of that model.
            clusters: what each row is about, for the interval.
            seed: of the interval.
        """
