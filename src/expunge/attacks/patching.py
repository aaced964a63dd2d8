"""Patching: does the original model still find the answer in the unlearned one's states? (arXiv:2605.24614)."""

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
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import label_states
from expunge.models.patching import patch
from expunge.models.tensor_store import RowStore
from expunge.numerics.intervals import Numbers

NO_BLOCK = "no block of the original model loses the answer when its states say nothing of the row"


class Patching(Attack):
    """Activation patching, block by block: what is left of the answer when the original reads the unlearned's states.

    For each block l, `gap_l(S) = s - s(l <- S)`, with s the mean log-probability of the answer's tokens under the
    original model and `l <- S` the states of S in the place of the block's own where those tokens are predicted. A
    row's number is `1 - sum_l clip(gap_l(unlearned), 0, gap_l(N)) / sum_l gap_l(N)` over the blocks with `gap_l(N)`
    above the threshold: 1 where the unlearned model's states do as well as the original's, 0 where they do no better
    than N's.

    N is the retrained model where there is one, which makes this 1 less the unlearning depth score; else the mean of
    the original's own states over all other rows (mean ablation), a floor that lacks even the form of the answer, so
    that the number is an upper bound.
    """

    access = "weights"
    needs_original = True
    tries = ("white-box probing",)

    class Config(Attack.Config):
        """Which blocks count."""

        threshold: float = Field(
            0.05, gt=0, description="Blocks count whose uninformed states cost more nats than this"
        )

    def check(self, context: AttackContext) -> None:
        """Refuse a single row where the floor is the mean over the others."""
        if context.load_retrained is None and len(context.rows) < 2:
            raise UserError(f"attacks.{self.name}: a single row has no other rows to compare with")

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
    """For each row, (L, N, D) states that know nothing of it."""
    retrained = context.retrained()
    if retrained is not None:
        return label_states(retrained, rows)
    return others_mean(_states(context.original(), rows))


def _states(model: LanguageModel, rows: list[Encoded]) -> RowStore:
    with model.evaluating():
        return label_states(model, rows)


def others_mean(states: RowStore | list[Tensor]) -> list[Tensor]:
    """For each row the mean state of all other rows at every block, as often as it has labels: (L, N, D) each.

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
