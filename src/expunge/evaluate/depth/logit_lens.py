"""Logit-lens depth: can the original's head read the answer in the unlearned model's states? (arXiv:2605.24614)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen, Score
from expunge.evaluate.depth._result import Numbers, mean_depth
from expunge.evaluate.depth.base import Depth, Look, Stage
from expunge.models.outputs import read_states


class LogitLensDepth(Depth):
    """The original model's last norm and output matrix read what each block of each model gives.

    For each block l, `gap_l(S) = s_l(original) - s_l(S)`, with s_l the mean log-probability that is read of the
    answer's tokens; the rest is as in the unlearning depth score.
    """

    class Config(Frozen):
        """Options of the logit-lens depth."""

        threshold: float = Field(0.05, ge=0, description="Blocks count in which the retrained model lacks more nats")

    stages = ("retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._states: dict[Stage, list[Tensor]] = {}
        self._gaps: list[tuple[Numbers, Numbers]] = []

    def look(self, stage: Stage, look: Look) -> None:
        """Keep the states of both others, and then read all with the original model's head."""
        self._states[stage] = look.states
        if stage != "original":
            return
        for place, row in enumerate(look.rows):
            states = torch.stack([self._states[one][place] for one in self.stages])
            labels = torch.tensor(row.labels).repeat(states.shape[0] * states.shape[1])
            logp = read_states(look.model, states.flatten(0, 2), labels)
            found: Numbers = logp.view(states.shape[:3]).double().mean(-1).numpy()
            retrained, unlearned, original = found
            self._gaps.append((np.asarray(original - retrained), np.asarray(original - unlearned)))
        self._states.clear()

    def score(self, seed: int) -> Score:
        """Mean over rows."""
        return mean_depth(self._gaps, self.config.threshold, seed)
