"""Masked Fisher depth: do the answers pull at the weights as in the retrained model? (arXiv:2605.24614)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen, Score
from expunge.evaluate.depth._result import depth_score
from expunge.evaluate.depth.base import Depth, Look, Stage
from expunge.models.base import LanguageModel
from expunge.models.gradients import answer_gradients
from expunge.numerics.intervals import Clusters, Numbers


class MaskedFisherDepth(Depth):
    """Squared gradients of each row's loss on the answer's tokens, at the weights where they differ most.

    An answer that a model knows hardly pulls at its weights, one that it does not know does. F is the mean over rows of
    the squared gradient. In each block the mask is the share of weights with the largest `F(ret) - F(orig)`, F_l is the
    mean of F over it, and `e_l = 1 - clip((F_l(ret) - F_l(unl)) / (F_l(ret) - F_l(orig)), 0, 1)`, averaged over the
    blocks with weights `F_l(ret) - F_l(orig)`. Four numbers for every weight of the blocks are held at once.
    """

    class Config(Frozen):
        """Options of the masked Fisher depth."""

        share: float = Field(0.001, gt=0, le=1, description="Share of a block's weights; the paper takes 1e-4 to 1e-2")

    stages = ("original_first", "retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._fisher: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._rows: dict[tuple[Stage, str], Numbers] = {}

    def look(self, stage: Stage, look: Look) -> None:
        """Find the mask from the original and the retrained model, then keep each model's mean over it, row by row."""
        if stage == "original_first":
            self._fisher = _mean_squares(look)
            return
        if stage == "retrained":
            self._masks = [
                (retrained - original).topk(max(1, round(self.config.share * len(original)))).indices
                for retrained, original in zip(_mean_squares(look), self._fisher, strict=True)
            ]
            self._fisher.clear()
        self._rows[stage, look.label] = np.array(
            [
                [float(square[mask].mean()) for square, mask in zip(squares, self._masks, strict=True)]
                for squares in map(lambda row: _squares(look.model, row), look.rows)
            ]
        )

    def score(self, label: str, clusters: Clusters, seed: int) -> Score:
        """With the mask as it is; rows are resampled."""
        retrained, original = self._rows["retrained", ""], self._rows["original", ""]
        unlearned = self._rows["unlearned", label]

        def statistic(weights: Numbers) -> Numbers:
            total = weights.sum(axis=1, keepdims=True)
            room = np.maximum(weights @ (retrained - original) / total, 0)
            lacking = np.clip(weights @ (retrained - unlearned) / total, 0, room)
            whole = room.sum(axis=1)
            depth: Numbers = 1 - lacking.sum(axis=1) / np.where(whole > 0, whole, 1)
            return np.where(whole > 0, depth, np.nan)

        return depth_score(statistic, clusters, seed)


def _mean_squares(look: Look) -> list[Tensor]:
    """For each block, the mean over rows of its weights' squared gradients, flat."""
    sums: list[Tensor] = []
    for row in look.rows:
        squares = _squares(look.model, row)
        sums = [total.add_(square) for total, square in zip(sums, squares, strict=True)] if sums else squares
    return [total.div_(len(look.rows)) for total in sums]


def _squares(model: LanguageModel, row: Any) -> list[Tensor]:
    """For each block, the squared gradient of one row's loss, over all of its weights in one flat tensor."""
    parts = [[weight for weight in block.parameters() if weight.is_floating_point()] for _, block in model.blocks()]
    gradients = answer_gradients(model, row, [weight for weights in parts for weight in weights])
    found, start = [], 0
    for weights in parts:
        own = gradients[start : start + len(weights)]
        start += len(weights)
        flat = [
            torch.zeros(weight.numel()) if gradient is None else gradient.flatten().square().cpu()
            for weight, gradient in zip(weights, own, strict=True)
        ]
        found.append(torch.cat(flat))
    return found
