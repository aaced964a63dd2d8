"""CKA depth: have the unlearned model's states the geometry of the retrained one's? (arXiv:1905.00414)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.records import Score
from expunge.evaluate.whitebox._scores import depth_score
from expunge.evaluate.whitebox.base import Observed, Stage, WhiteBoxMeasure
from expunge.models.tensor_store import RowStore
from expunge.numerics.intervals import Clusters, Numbers

_NO_DIFFERENCE = 1e-6
"""Weights that add up to less than this are rounding."""
_COLUMNS = 2048
"""Columns of a kernel that are computed together."""


class CKADepth(WhiteBoxMeasure):
    """Linear centred kernel alignment of states at the answers' tokens, all rows together, block by block.

    `e_l = clip((CKA(unl, ret) - CKA(orig, ret)) / (1 - CKA(orig, ret)), 0, 1)`, averaged over the blocks with weights
    `1 - CKA(orig, ret)` (arXiv:2605.24614).
    """

    stages = ("retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._states: dict[tuple[Stage, str], RowStore] = {}
        self._rows: list[int] = []

    def observe(self, stage: Stage, observed: Observed) -> None:
        """Keep the states of all rows."""
        self._states[stage, observed.label] = observed.states
        self._rows = [row for row, one in enumerate(observed.rows) for _ in one.labels]

    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """Over all tokens; a resampled row brings all of its tokens."""
        rows = np.array(self._rows)
        num_rows = int(rows.max()) + 1
        places: tuple[tuple[Stage, str], ...] = (("retrained", ""), ("unlearned", label), ("original", ""))
        stores = [self._states[place] for place in places]
        num_blocks = len(stores[0][0])

        def kernels(block: int) -> tuple[Kernel, Kernel, Kernel]:
            """Those of one block only: N, the number of all label tokens, can be large."""
            one, two, three = (
                Kernel(torch.cat([store.part(row, block) for row in range(num_rows)])) for store in stores
            )
            return one, two, three

        def statistic(weights: Numbers) -> Numbers:
            tokens = weights[:, rows]
            found = [
                _gain(retrained, unlearned, original, tokens)
                for retrained, unlearned, original in map(kernels, range(num_blocks))
            ]
            importance = np.stack([one[0] for one in found])
            total = importance.sum(axis=0)
            depth: Numbers = np.stack([one[1] for one in found]).sum(axis=0) / np.where(total > 0, total, 1)
            return np.where(total > _NO_DIFFERENCE, depth, np.nan)

        return depth_score(statistic, clusters, seed)


class Kernel:
    """The (N, N) inner products of (N, D) vectors, computed some columns at a time where they are many.

    The vectors are centred, and scaled to a mean squared length of 1, which rounds less.
    """

    def __init__(self, states: Tensor) -> None:
        centred = states.double() - states.double().mean(0)
        scale = centred.square().sum(-1).mean().sqrt()
        self._vectors = centred / scale if scale > 0 else centred

    def columns(self, part: slice) -> Numbers:
        """(N, n) some of them."""
        found: Numbers = (self._vectors @ self._vectors[part].T).numpy()
        return found


def _gain(retrained: Kernel, unlearned: Kernel, original: Kernel, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Weight of a block, and that weight times its part of the way, for each of several draws."""
    room = np.maximum(1 - weighted_cka(original, retrained, weights), 0)
    return room, np.clip(weighted_cka(unlearned, retrained, weights) - (1 - room), 0, room)


def weighted_cka(one: Kernel, other: Kernel, weights: Numbers) -> Numbers:
    """Linear CKA of two sets of vectors of the same N tokens, as if token i were there `weights[i]` times.

    Args:
        one: of the vectors of one model.
        other: of those of another model.
        weights: (draws, N).

    Returns:
        (draws,) in [0, 1]; 0 where the vectors of a model do not differ.
    """
    sums = [_Sums(), _Sums(), _Sums()]
    for start in range(0, weights.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        first_columns, second_columns = one.columns(part), other.columns(part)
        left, right = weights @ first_columns, weights @ second_columns
        sums[0].add(weights, part, first_columns * second_columns, left, right)
        sums[1].add(weights, part, first_columns * first_columns, left, left)
        sums[2].add(weights, part, second_columns * second_columns, right, right)
    cross, first, second = (found.alignment(weights) for found in sums)
    norm = np.sqrt(np.maximum(first, 0) * np.maximum(second, 0))
    found: Numbers = np.where(norm > 0, cross / np.where(norm > 0, norm, 1), 0)
    return found


@dataclass
class _Sums:
    """Parts of the inner product of two kernels K and L after centring, for each draw, over the columns so far."""

    whole: Numbers | float = 0.0
    """`sum_ij w_i w_j K_ij L_ij`."""
    rows: Numbers | float = 0.0
    """`sum_j w_j (Kw)_j (Lw)_j`."""
    left: Numbers | float = 0.0
    """`wKw`."""
    right: Numbers | float = 0.0
    """`wLw`."""

    def add(self, weights: Numbers, part: slice, product: Numbers, left: Numbers, right: Numbers) -> None:
        """Some columns: product (N, n) of both kernels, weighted sums (draws, n) of the columns of each."""
        own = weights[:, part]
        self.whole = self.whole + (own * (weights @ product)).sum(axis=1)
        self.rows = self.rows + (own * left * right).sum(axis=1)
        self.left = self.left + (own * left).sum(axis=1)
        self.right = self.right + (own * right).sum(axis=1)

    def alignment(self, weights: Numbers) -> Numbers:
        """(draws,) `whole - 2/W rows + wKw wLw / W^2`, with W the sum of the weights."""
        total = weights.sum(axis=1)
        found: Numbers = self.whole - 2 * self.rows / total + self.left * self.right / total**2
        return found
