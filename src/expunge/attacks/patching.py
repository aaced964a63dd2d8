"""Patching: can the original model still read the answer from the unlearned one's states? (arXiv:2605.24614)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._prompt_slots import asked_as_text
from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt, CurvePoint, InternalMeasure, Value
from expunge.core.errors import UserError
from expunge.data.encode import Encoded
from expunge.evaluate.whitebox.base import gap_shares
from expunge.models.block_outputs import label_states
from expunge.models.patching import patch
from expunge.models.tensor_store import RowStore
from expunge.numerics.intervals import Numbers

NO_BLOCK = "no block of the original model loses the answer when its states say nothing of the row"


class Patching(Attack):
    """Activation patching: patches each block output of the unlearned model into the original model.

    For each block l, `gap_l(S) = s - s(l <- S)`, with s the mean log-probability of the answer's tokens under the
    original model and `l <- S` the states of S instead of the block's own where those tokens are predicted. A row's
    number is `1 - sum_l clip(gap_l(unlearned), 0, gap_l(N)) / sum_l gap_l(N)` over the blocks with `gap_l(N)` above
    the threshold: 1 if the unlearned model's states are as good as the original's, 0 if they are no better than N's.

    N is the retrained model if there is one; the number is then 1 minus the unlearning depth score. Otherwise N is the
    mean of the original's own states over all other rows (mean ablation), which lacks even the form of the answer, so
    that the number is an upper bound.
    """

    access = "weights"
    needs_original = True
    tries = ("white-box probing",)

    class Config(Attack.Config):
        """Options of the comparison."""

        threshold: float = Field(0.05, gt=0, description="Blocks count if uninformed states cost more nats than this")

    def check(self, context: AttackContext) -> None:
        """Refuse a single row if the floor is the mean over the other rows."""
        if context.load_retrained is None and len(context.rows) < 2:
            raise UserError(f"attacks.{self.name}: needs two or more rows, or --reference MODEL")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt, with a curve over the blocks."""
        rows = [context.model.encoder.keywords(asked_as_text(row, context.model.encoder)) for row in context.rows]
        states = label_states(context.model, rows)
        floor = context.cached(f"{ORIGINAL}patching/floor", lambda: _floor(context, rows))
        original = context.original()
        gaps = []
        for row, own, uninformed in zip(rows, states, floor, strict=True):
            context.check_time()
            gaps.append(patch(original, row, [own, uninformed]).gaps)
        lost, most = np.stack(gaps, axis=1)
        shares, means = gap_shares(most, lost, self.config.threshold)
        source = "mean states" if context.load_retrained is None else "the retrained model's states"
        yield Attempt(
            "",
            _values(1 - means),
            given=len(rows),
            along="block",
            curve=[CurvePoint(layer, _values(1 - values)) for layer, values in enumerate(shares.T)],
            inside=InternalMeasure(
                f"answer left when the original reads this model's states; 0: as little as with {source}",
                chance=0.0,
                original=[1.0] * len(rows),
            ),
        )


def _floor(context: AttackContext, rows: list[Encoded]) -> RowStore | list[Tensor]:
    """For each row, (L, N, D) states without knowledge of it."""
    retrained = context.retrained()
    if retrained is not None:
        return label_states(retrained, rows)
    return others_mean(label_states(context.original(), rows))


def others_mean(states: RowStore | list[Tensor]) -> list[Tensor]:
    """For each row, the mean state of all other rows at every block, repeated for each label: (L, N, D) each.

    Args:
        states: at least two rows.
    """
    totals = [(one.sum(1), one.shape) for one in states]
    sums = torch.stack([total for total, _ in totals])
    counts = torch.tensor([shape[1] for _, shape in totals])
    return [
        ((sums.sum(0) - sums[row]) / (counts.sum() - counts[row]))[:, None].expand(shape)
        for row, (_, shape) in enumerate(totals)
    ]


def _values(numbers: Numbers) -> list[Value]:
    return [NO_BLOCK if math.isnan(value) else value for value in numbers.tolist()]
