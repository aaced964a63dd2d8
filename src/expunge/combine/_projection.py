"""Directions that hardly carry any energy of a matrix's retain inputs, and the part of a change that lies in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.records import Frozen

Rule = Literal["energy", "abs", "ratio", "rank", "soft"]


class ProjectionConfig(Frozen):
    """How far the null space of the retain inputs is relaxed."""

    rule: Rule = Field(
        "energy",
        description="Which directions are free: those that together hold at most the share `energy` of the retain "
        "energy; abs: eigenvalues up to tau; ratio: up to ratio times the smallest; rank: the lowest share `rank`; "
        "soft: each by tau / (eigenvalue + tau)",
    )
    energy: float = Field(1e-3, ge=0, le=1, description="0: the exact null space; 1: all directions (epsilon)")
    tau: float = Field(1e-2, gt=0, description="With rules abs and soft, in squared units of the inputs")
    ratio: float = Field(10.0, ge=1, description="With rule ratio; fragile where the smallest eigenvalue is near 0")
    rank: float = Field(0.5, ge=0, le=1, description="With rule rank")
    rho: float = Field(
        0.0, ge=0, le=1, description="Share of a change that passes outside the free directions; needs a retain loss"
    )


@dataclass(frozen=True)
class Projection:
    """P = U diag(c) U^T over d inputs, held as `base I + B diag(weights) B^T` with the fewest columns."""

    base: float
    basis: Tensor
    """(d, r)."""
    weights: Tensor
    """(r,)."""
    share: float
    """Mean of c: of a hard rule without rho the share of directions that are free."""

    def __call__(self, change: Tensor) -> Tensor:
        """(n, d) -> (n, d): `change P`."""
        within: Tensor = ((change @ self.basis) * self.weights) @ self.basis.mT
        return self.base * change + within

    def to(self, like: Tensor) -> Projection:
        """The same on the device and in the dtype of a tensor."""
        return Projection(self.base, self.basis.to(like), self.weights.to(like), self.share)


def relax(moment: Tensor, config: ProjectionConfig) -> Projection:
    """The relaxed null-space projection of inputs with this second moment (AlphaEdit, arXiv:2410.02355, eq. 8 and 9).

    Args:
        moment: (d, d) float64 mean of `x x^T`, uncentred.
        config: the rule.
    """
    values, vectors = torch.linalg.eigh(moment)
    free = _RULES[config.rule](values.clamp(min=0), config).to(values)
    coefficients = free + config.rho * (1 - free)
    few = min((1.0, config.rho), key=lambda base: int((coefficients != base).sum()))
    other = coefficients != few
    return Projection(few, vectors[:, other].contiguous(), coefficients[other] - few, float(coefficients.mean()))


def held(moment: Tensor, config: ProjectionConfig) -> Projection:
    """The projection where no direction is free."""
    return Projection(config.rho, moment[:, :0], moment[0, :0], config.rho)


def _tolerance(values: Tensor) -> float:
    """Relative rounding error of a sum or of an eigenvalue; without it the limits 0 and 1 would be missed."""
    return len(values) * torch.finfo(values.dtype).eps


def _energy(values: Tensor, config: ProjectionConfig) -> Tensor:
    return values.cumsum(0) <= (config.energy + _tolerance(values)) * values.sum()


def _ratio(values: Tensor, config: ProjectionConfig) -> Tensor:
    return values <= config.ratio * values[0] + _tolerance(values) * values[-1]


def _rank(values: Tensor, config: ProjectionConfig) -> Tensor:
    return torch.arange(len(values), device=values.device) < round(config.rank * len(values))


_RULES: dict[Rule, Callable[[Tensor, ProjectionConfig], Tensor]] = {
    "energy": _energy,
    "abs": lambda values, config: values <= config.tau,
    "ratio": _ratio,
    "rank": _rank,
    "soft": lambda values, config: config.tau / (values + config.tau),
}
"""(d,) ascending eigenvalues -> (d,) how free each direction is, from 0 to 1."""
