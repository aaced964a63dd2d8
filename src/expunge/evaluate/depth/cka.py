"""CKA depth: have the unlearned model's states the geometry of the retrained one's? (arXiv:1905.00414)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.records import Score
from expunge.evaluate.depth._result import depth_score
from expunge.evaluate.depth.base import Depth, Look, Stage
from expunge.models.store import RowStore
from expunge.numerics.intervals import Clusters, Numbers

_NO_DIFFERENCE = 1e-6
"""Weights that add up to less than this are rounding."""


class CKADepth(Depth):
    """Linear centred kernel alignment of states at the answers' tokens, all rows together, block by block.

    `e_l = clip((CKA(unl, ret) - CKA(orig, ret)) / (1 - CKA(orig, ret)), 0, 1)`, averaged over the blocks with weights
    `1 - CKA(orig, ret)` (arXiv:2605.24614).
    """

    stages = ("retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._states: dict[tuple[Stage, str], RowStore] = {}
        self._rows: list[int] = []

    def look(self, stage: Stage, look: Look) -> None:
        """Keep the states of all rows."""
        self._states[stage, look.label] = look.states
        self._rows = [row for row, one in enumerate(look.rows) for _ in one.labels]

    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """Over all tokens; a resampled row brings all of its tokens."""
        rows = np.array(self._rows)
        num_rows = int(rows.max()) + 1
        places: tuple[tuple[Stage, str], ...] = (("retrained", ""), ("unlearned", label), ("original", ""))
        stores = [self._states[place] for place in places]
        num_blocks = len(stores[0][0])

        def kernels(block: int) -> tuple[Numbers, Numbers, Numbers]:
            """(N, N) each: those of one block only, since N is the number of all label tokens."""
            one, two, three = (
                _kernel(torch.cat([store.part(row, block) for row in range(num_rows)])) for store in stores
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


def _gain(retrained: Numbers, unlearned: Numbers, original: Numbers, weights: Numbers) -> tuple[Numbers, Numbers]:
    """Weight of a block, and that weight times its part of the way, for each of several draws."""
    room = np.maximum(1 - weighted_cka(original, retrained, weights), 0)
    return room, np.clip(weighted_cka(unlearned, retrained, weights) - (1 - room), 0, room)


def weighted_cka(one: Numbers, other: Numbers, weights: Numbers) -> Numbers:
    """Linear CKA of two sets of vectors of the same N tokens, as if token i were there `weights[i]` times.

    Args:
        one: (N, N) inner products of the vectors of one model.
        other: the same of another model.
        weights: (draws, N).

    Returns:
        (draws,) in [0, 1]; 0 where the vectors of a model do not differ.
    """
    cross, first, second = (_alignment(*pair, weights) for pair in ((one, other), (one, one), (other, other)))
    norm = np.sqrt(np.maximum(first, 0) * np.maximum(second, 0))
    found: Numbers = np.where(norm > 0, cross / np.where(norm > 0, norm, 1), 0)
    return found


def _alignment(one: Numbers, other: Numbers, weights: Numbers) -> Numbers:
    """Inner product of two kernels after centring, for each draw: (N, N), (N, N), (draws, N) -> (draws,).

    `sum_ij w_i w_j K_ij L_ij - 2/W sum_i w_i (Kw)_i (Lw)_i + wKw wLw / W^2`, with W the sum of the weights.
    """
    total = weights.sum(axis=1)
    left, right = weights @ one, weights @ other
    whole = (weights * (weights @ (one * other))).sum(axis=1)
    rows = (weights * left * right).sum(axis=1)
    means = (weights * left).sum(axis=1) * (weights * right).sum(axis=1)
    found: Numbers = whole - 2 * rows / total + means / total**2
    return found


def _kernel(states: Tensor) -> Numbers:
    """(N, D) to the (N, N) inner products of centred vectors of mean squared length 1, which rounds less."""
    centred = states.double() - states.double().mean(0)
    scale = centred.square().sum(-1).mean().sqrt()
    centred = centred / scale if scale > 0 else centred
    kernel: Numbers = (centred @ centred.T).numpy()
    return kernel
