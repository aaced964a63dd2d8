"""Logit-lens depth: can the original's head read the answer in the unlearned model's states? (arXiv:2605.24614)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen, Score
from expunge.evaluate.depth._result import mean_depth
from expunge.evaluate.depth.base import Depth, Look, Stage
from expunge.models.block_outputs import read_states
from expunge.numerics.intervals import Clusters, Numbers


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
        self._retrained: Iterable[Tensor] = ()
        self._unlearned: dict[str, Iterable[Tensor]] = {}
        self._gaps: dict[str, list[tuple[Numbers, Numbers]]] = {}

    def look(self, stage: Stage, look: Look) -> None:
        """Keep the states of the others, and then read all with the original model's head."""
        if stage == "retrained":
            self._retrained = look.states
        elif stage == "unlearned":
            self._unlearned[look.label] = look.states
        else:
            every = zip(look.states, self._retrained, *self._unlearned.values(), strict=True)
            for row, models in zip(look.rows, every, strict=True):
                original, *others = (_read(look, states, row.labels) for states in models)
                retrained, *unlearned = (original - other for other in others)
                for label, gap in zip(self._unlearned, unlearned, strict=True):
                    self._gaps.setdefault(label, []).append((retrained, gap))

    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """Mean over rows."""
        return mean_depth(self._gaps[label], clusters, self.config.threshold, seed)


def _read(look: Look, states: Tensor, labels: Sequence[int]) -> Numbers:
    """(L, N, D) states of one row to the (L,) mean log-probabilities that are read of its labels."""
    logp = read_states(look.model, states.flatten(0, 1), torch.tensor(labels).repeat(len(states)))
    found: Numbers = logp.view(states.shape[:2]).double().mean(-1).numpy()
    return found
