"""Noise: small random numbers added to every weight, then plain questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._curves import strength_curve, strongest
from expunge.attacks.base import Attack, Attempt, Context
from expunge.models.changed import Change, block_matrices

Size = Annotated[float, Field(gt=0)]


class Noise(Attack):
    """A thin cover of unlearning over knowledge may tear before the knowledge does.

    Normal numbers on each matrix of the decoder blocks, their deviation a share of that of the matrix. A row's value is
    its mean over the draws of a size; the number of the attack is that of the size which gets most.
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

    def run(self, context: Context) -> Iterator[Attempt]:
        """One attempt, with a curve over the sizes."""
        names = block_matrices(context.model)

        def changes(size: float) -> list[Change]:
            return [
                lambda name, weight, draw=draw: (  # type: ignore[misc]
                    noisy(weight, size, context.generator(f"noise/{size}/{draw}/{name}")) if name in names else None
                )
                for draw in range(self.config.draws)
            ]

        curve = strength_curve(context, self.config.sizes, changes, "noise of")
        yield Attempt("", strongest(curve).knowledge, along="size of the noise", curve=curve)


def noisy(weight: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """The same with normal noise of `size` times its own deviation: any shape."""
    drawn = torch.randn(weight.shape, generator=generator)
    return (weight.float() + size * weight.float().std() * drawn.to(weight.device)).to(weight.dtype)
