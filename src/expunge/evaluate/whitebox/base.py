"""The contract of a white-box measure: it observes three kinds of model in turn and compares what it kept of them.

The original model knows the forget rows, the retrained one never saw them. The score places the unlearned model between
them: 0 if its inside still is the original's, 1 if it is like the retrained model's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from expunge.core.records import Frozen, Score
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import label_states
from expunge.models.tensor_store import RowStore, StateMemory
from expunge.numerics.intervals import Clusters, Numbers

Stage = Literal["original_first", "retrained", "unlearned", "original"]
"""When a model is observed. The original model comes first or last, as a measure needs it; the unlearned models, any
number of them, come in between."""


class Observed:
    """A model while it is in memory, with the forget rows; states that several measures need are computed once.

    Args:
        model: in memory during this stage only.
        rows: encoded forget rows; their labels are the tokens that count.
        label: identifies an unlearned model.
        memory: the budget that the states of all models share. Default: the model's own budget.
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
        """For each row, the (L, N, D) outputs of L blocks that predict its N labels, float32 on the CPU."""
        return label_states(self.model, self.rows, memory=self.memory)


class WhiteBoxMeasure(ABC):
    """How far the unlearned model has moved inside, from the original model towards the retrained one."""

    class Config(Frozen):
        """Options of the measure."""

    stages: ClassVar[tuple[Stage, ...]]
    """The stages that the measure observes; a model is loaded for a stage only if some measure observes it."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def observe(self, stage: Stage, observed: Observed) -> None:
        """Keep what the score needs of a model, and no reference to the model itself."""

    @abstractmethod
    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """The score of an unlearned model, after all stages; higher means deeper forgetting.

        Args:
            label: of that model.
            clusters: of the rows, for the interval.
            seed: of the interval.
        """


def gap_shares(reference: Numbers, gaps: Numbers, threshold: float) -> tuple[Numbers, Numbers]:
    """The share of a reference's gap that another model has, by block and over all blocks (arXiv:2605.24614).

    A block l counts if `gap_l(reference) > threshold`. Its share is `clip(gap_l / gap_l(reference), 0, 1)`; the share
    over all blocks is the mean of these, weighted with `gap_l(reference)`.

    Args:
        reference: (..., L) what the reference lacks at each block, in nats.
        gaps: (..., L) what the other model lacks.
        threshold: in nats.

    Returns:
        (..., L) shares, nan for blocks that do not count, and (...) weighted means, nan if no block counts.
    """
    room = np.where(reference > threshold, reference, np.nan)
    lacking = np.clip(gaps, 0, room)
    whole = np.nansum(room, axis=-1)
    means = np.nansum(lacking, axis=-1) / np.where(whole > 0, whole, np.nan)
    return lacking / room, means
