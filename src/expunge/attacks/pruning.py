"""Pruning: the smallest weights of every matrix set to zero, then plain questions (arXiv:1506.02626)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

from expunge.attacks._weights import strength_curve, strongest
from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.models.matrices import block_matrices
from expunge.models.temporary_weights import ChangeWeight, each_matrix

Share = Annotated[float, Field(gt=0, lt=1)]


class Pruning(Attack):
    """If unlearning hides knowledge by small changes of many weights, removing small weights may reveal it.

    The given share of weights with the smallest magnitudes is set to zero in each matrix of the decoder blocks (each
    expert separately); norms, biases and routers are unchanged. The attack's result is that of the most successful
    share.
    """

    access = "weights"
    harms = True

    class Config(Attack.Config):
        """Options of the pruning."""

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
    """The weight, of any shape, with a share of its smallest magnitudes set to zero, including ties."""
    count = round(share * weight.numel())
    if not count:
        return weight.clone()
    magnitude = weight.abs()
    return weight.masked_fill(magnitude <= magnitude.flatten().kthvalue(count).values, 0)
