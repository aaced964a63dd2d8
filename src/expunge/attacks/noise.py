"""Noise: small random numbers added to every weight, then plain questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._weights import strength_curve, strongest
from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.models.matrices import block_matrices
from expunge.models.temporary_weights import ChangeWeight

Size = Annotated[float, Field(gt=0)]


class Noise(Attack):
    """If unlearning only masks knowledge, noise may destroy the mask before it destroys the knowledge.

    Gaussian noise is added to each matrix of the decoder blocks (each expert separately) with a standard deviation that
    is a share of the matrix's own; norms, biases and routers are unchanged. A row's value is its mean over the draws of
    a size; the attack's result is that of the most successful size.
    """

    access = "weights"
    harms = True

    class Config(Attack.Config):
        """Options of the noise."""

        sizes: tuple[Size, ...] = Field(
            (0.02, 0.05, 0.1),
            min_length=1,
            description="Standard deviations of the noise, relative to that of each matrix",
        )
        draws: int = Field(2, ge=1, description="Draws of the noise per size")

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
    """The weight with Gaussian noise of `size` times its own standard deviation.

    Args:
        weight: any shape.
        size: relative standard deviation.
        generator: of the noise.
        num: number of matrices stacked in the weight; each has its own standard deviation.
    """
    drawn = torch.randn(weight.shape, generator=generator).to(weight.device)
    parts = zip(weight.float().reshape(num, -1), drawn.view(num, -1), strict=True)
    return torch.stack([part + size * part.std() * noise for part, noise in parts]).view_as(weight).to(weight.dtype)
