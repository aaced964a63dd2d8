"""Pruning: the smallest weights of every matrix set to zero, then plain questions (arXiv:1506.02626)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

from expunge.attacks._curves import strength_curve, strongest
from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.models.matrices import block_matrices
from expunge.models.temporary_weights import ChangeWeight, each_matrix

Share = Annotated[float, Field(gt=0, lt=1)]


class Pruning(Attack):
    """Small changes of many weights may hide knowledge, and go with the small weights.

    In each matrix of the decoder blocks by itself, every expert's too, the given share of weights with the smallest
    magnitudes; norms, biases and routers stay. The number of the attack is that of the share which gets most.
    """

    access = "weights"
    harms = True

    class Config(Attack.Config):
        """How much is pruned."""

        shares: tuple[Share, ...] = Field(
            (0.05, 0.1, 0.2, 0.3),
            min_length=1,
            description="Shares of each matrix that are set to zero",
        )

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt, with a curve over the shares."""
        matrices = block_matrices(context.model)

        def changes(share: float) -> list[ChangeWeight]:
            def change(name: str, weight: Tensor) -> Tensor | None:
                return each_matrix(matrices[name], weight, prune) if name in matrices else None

            def prune(matrix: Tensor) -> Tensor:
                return pruned(matrix, share)

            return [change]

        curve, covered = strength_curve(context, self.config.shares, changes, "pruned")
        yield Attempt("", strongest(curve).knowledge, along="share of weights", curve=curve, covered=covered)


def pruned(weight: Tensor, share: float) -> Tensor:
    """The same with its smallest magnitudes set to zero, those that equal the largest of them too: any shape."""
    count = round(share * weight.numel())
    if not count:
        return weight.clone()
    magnitude = weight.abs()
    return weight.masked_fill(magnitude <= magnitude.flatten().kthvalue(count).values, 0)
