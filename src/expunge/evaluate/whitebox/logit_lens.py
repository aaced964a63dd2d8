"""Logit-lens depth: can the original's head read the answer in the unlearned model's states? (arXiv:2605.24614)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen
from expunge.evaluate.whitebox._scores import GapMeasure
from expunge.evaluate.whitebox.base import Observed
from expunge.models.block_outputs import read_states
from expunge.numerics.intervals import Numbers


class LogitLensDepth(GapMeasure):
    """Reads every block's output of each model with the original model's last norm and output matrix.

    For each block l, `gap_l(S) = s_l(original) - s_l(S)`, with s_l the mean log-probability that is read of the
    answer's tokens; the rest is as in the unlearning depth score.
    """

    class Config(Frozen):
        """Options of the logit-lens depth."""

        threshold: float = Field(
            0.05, ge=0, description="Blocks count if the retrained model lacks more nats than this"
        )

    def gaps(self, original: Observed, row: int, states: Sequence[Tensor]) -> Numbers:
        """Log-probability that the lens loses."""
        labels = torch.tensor(original.rows[row].labels)
        read: list[Numbers] = [
            read_states(original.model, one, labels).double().mean(-1).numpy()
            for one in (original.states[row], *states)
        ]
        return read[0] - np.stack(read[1:])
