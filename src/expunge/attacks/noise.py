"""Noise: small random numbers added to every weight, then plain questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._curves import strength_curve, strongest
from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.models.matrices import block_matrices
from expunge.models.temporary_weights import ChangeWeight

Size = Annotated[float, Field(gt=0)]


class Noise(Attack):
    """A thin cover of unlearning over knowledge may tear before the knowledge does.

    Normal numbers on each matrix of the decoder blocks, every expert's by itself, their deviation a share of that of
    the matrix; norms, biases and routers stay. A row's value is its mean over the draws of a size; the number of the
    attack is that of the size which gets most.
    """

    access = "weights"
    harms = True

    class Config(Attack.Config):
        """How much noise."""

        sizes: tuple[Size, ...] = Field(
            (0.02, 0.05, 0.1),
            min_length=1,
            description="Deviations of the noise, as shares of a matrix's own deviation",
        )
        draws: int = Field(2, ge=1, description="Models with noise of each size")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt, with a curve over the sizes."""
        matrices = block_matrices(context.model)

        def changes(size: float) -> list[ChangeWeight]:
            return [
                lambda name, weight, draw=draw: (  # type: ignore[misc]
                    noisy(weight, size, context.generator(f"noise/{size}/{draw}/{name}"), matrices[name].num)
                    if name in matrices
                    else None
                )
                for draw in range(self.config.draws)
            ]

        curve, covered = strength_curve(context, self.config.sizes, changes, "noise of")
        yield Attempt("", strongest(curve).knowledge, along="size of the noise", curve=curve, covered=covered)


def noisy(weight: Tensor, size: float, generator: torch.Generator, num: int = 1) -> Tensor:
    """The same with normal noise of `size` times its own deviation.

    Args:
        weight: any shape.
        size: share of the deviation.
        generator: of the noise.
        num: matrices that the weight holds one after another; each has a deviation of its own.
    """
    drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
    parts = zip(weight.float().reshape(num, -1), drawn.view(num, -1), strict=True)
    return torch.stack([part + size * part.std() * noise for part, noise in parts]).view_as(weight).to(weight.dtype)
