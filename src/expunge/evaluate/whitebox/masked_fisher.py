"""Masked Fisher depth: do the answers pull at the weights as in the retrained model? (arXiv:2605.24614)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from expunge.core.records import Frozen, Score
from expunge.data.encode import Encoded
from expunge.evaluate.whitebox._scores import depth_score
from expunge.evaluate.whitebox.base import Observed, Stage, WhiteBoxMeasure
from expunge.models.base import LanguageModel
from expunge.models.gradients import answer_gradients
from expunge.models.tensor_store import TensorStore
from expunge.numerics.intervals import Clusters, Numbers


class MaskedFisherDepth(WhiteBoxMeasure):
    """Squared gradients of each row's loss on the answer's tokens, at the weights where they differ most.

    An answer that a model knows hardly pulls at its weights, one that it does not know does. F is the mean over rows of
    the squared gradient. In each block the mask is the share of weights with the largest `F(ret) - F(orig)`, F_l is the
    mean of F over it, and `e_l = 1 - clip((F_l(ret) - F_l(unl)) / (F_l(ret) - F_l(orig)), 0, 1)`, averaged over the
    blocks with weights `F_l(ret) - F_l(orig)`. F of one model is held in memory, that of another up to a bound and else
    on disk; gradients are processed weight by weight.
    """

    class Config(Frozen):
        """Options of the masked Fisher depth."""

        share: float = Field(0.001, gt=0, le=1, description="Share of a block's weights; the paper takes 1e-4 to 1e-2")

    stages = ("original_first", "retrained", "unlearned", "original")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._fisher: TensorStore[int] | None = None
        self._masks: list[Tensor] = []
        self._rows: dict[tuple[Stage, str], Numbers] = {}

    def observe(self, stage: Stage, observed: Observed) -> None:
        """Find the mask from the original and the retrained model, then keep each model's mean over it, row by row."""
        if stage == "original_first":
            self._fisher = TensorStore(observed.memory)
            for block, mean in enumerate(_mean_squares(observed)):
                self._fisher.put(block, mean)
            return
        if stage == "retrained":
            assert self._fisher is not None, "the original is observed first"
            self._masks = [
                (retrained - self._fisher[block]).topk(max(1, round(self.config.share * len(retrained)))).indices
                for block, retrained in enumerate(_mean_squares(observed))
            ]
            self._fisher = None
        self._rows[stage, observed.label] = np.array(
            [_means(observed.model, row, self._masks) for row in observed.rows]
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


@dataclass(frozen=True)
class _Part:
    """A weight of the blocks, and where it lies in its block when all weights of that are put one after another."""

    block: int
    start: int
    weight: nn.Parameter


def _parts(model: LanguageModel) -> list[_Part]:
    found = []
    for block, (_, module) in enumerate(model.blocks()):
        start = 0
        for weight in module.parameters():
            if weight.is_floating_point():
                found.append(_Part(block, start, weight))
                start += weight.numel()
    return found


def _mean_squares(observed: Observed) -> list[Tensor]:
    """For each block, the mean over rows of its weights' squared gradients, flat, on the CPU."""
    parts = _parts(observed.model)
    sizes = Counter[int]()
    for part in parts:
        sizes[part.block] += part.weight.numel()
    sums = [torch.zeros(sizes[block]) for block in range(len(observed.model.blocks()))]

    def add(place: int, gradient: Tensor) -> None:
        part = parts[place]
        sums[part.block][part.start : part.start + gradient.numel()] += gradient.float().flatten().square().cpu()

    for row in observed.rows:
        answer_gradients(observed.model, row, [part.weight for part in parts], add)
    return [total.div_(len(observed.rows)) for total in sums]


def _means(model: LanguageModel, row: Encoded, masks: Sequence[Tensor]) -> list[float]:
    """For each block, the mean of one row's squared gradients at the places of the block's mask."""
    parts = _parts(model)
    found = [torch.zeros(len(mask)) for mask in masks]

    def pick(place: int, gradient: Tensor) -> None:
        part = parts[place]
        places = masks[part.block] - part.start
        mine = (places >= 0) & (places < gradient.numel())
        picked = gradient.flatten()[places[mine].to(gradient.device)]
        found[part.block][mine] = picked.float().square().cpu()

    answer_gradients(model, row, [part.weight for part in parts], pick)
    return [float(values.mean()) for values in found]
