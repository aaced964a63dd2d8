"""UDS: would the unlearned model's states make the original one lose the answer? (arXiv:2605.24614)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen, Score
from expunge.evaluate.depth._result import mean_depth
from expunge.evaluate.depth.base import Depth, Look, Stage
from expunge.models.patching import patch
from expunge.numerics.intervals import Clusters, Numbers


class UnlearningDepthScore(Depth):
    """What a block of another model gives takes the place of the original's where the answer's tokens are predicted.

    For each block l, `gap_l(S) = s - s(l <- S)`, with s the mean log-probability of the tokens under the original
    model. A block counts where the retrained model's gap is above the threshold, by its size; see `gap_depth`.
    Rows without such a block are left out.
    """

    class Config(Frozen):
        """Options of the unlearning depth score."""

        threshold: float = Field(0.05, ge=0, description="Blocks count whose retrained states cost more nats than this")

    stages = ("retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._retrained: Iterable[Tensor] = ()
        self._unlearned: dict[str, Iterable[Tensor]] = {}
        self._gaps: dict[str, list[tuple[Numbers, Numbers]]] = {}

    def look(self, stage: Stage, look: Look) -> None:
        """Keep the states of the others, and then put them into the original model."""
        if stage == "retrained":
            self._retrained = look.states
        elif stage == "unlearned":
            self._unlearned[look.label] = look.states
        else:
            sources = zip(self._retrained, *self._unlearned.values(), strict=True)
            for row, states in zip(look.rows, sources, strict=True):
                found = patch(look.model, row, states)
                gaps: Numbers = found.plain - found.patched.numpy().astype(np.float64)
                for label, own in zip(self._unlearned, gaps[1:], strict=True):
                    self._gaps.setdefault(label, []).append((gaps[0], own))

    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """Mean over rows."""
        return mean_depth(self._gaps[label], clusters, self.config.threshold, seed)
