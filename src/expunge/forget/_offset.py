"""Principal Offset Vectors: directions made from what a set of hidden states has in common (arXiv:2502.01472)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 2048
"""Tokens widened to float64 at a time."""
_MAX_CODE_DIRECTIONS = 1000
_CODE_WEIGHT = 1000.0
_CODE_NOISE = 0.01
_CODE_ROUNDS = 6


@dataclass(frozen=True)
class Principal:
    """Right singular vectors of M hidden states of width D and rank R, not centred."""

    energies: Tensor
    """(R,) float64 squared singular values, falling."""
    directions: Tensor
    """(R, D) float64 unit rows."""

    def first(self, count: int) -> Principal:
        """The strongest `count` of them."""
        return Principal(self.energies[:count], self.directions[:count])

    def num_explaining(self, share: float) -> int:
        """How many of the strongest hold at least this share of the energy of all."""
        short = int((self.energies.cumsum(0) < share * self.energies.sum()).sum())
        return min(short + 1, len(self.energies))

    def energy_of(self, vector: Tensor) -> float:
        """Share of the squared length of a (D,) vector that lies in their span."""
        vector = vector.double()
        return float((self.directions @ vector).square().sum() / vector.square().sum())


@dataclass(frozen=True)
class Offset:
    """A direction, and what it has in common with the original states of the forget rows."""

    direction: Tensor
    """(D,) float32 of length 1."""
    num_dimensions: int
    """Of their principal subspace."""
    energy: float
    """Share of the direction that lies in that subspace."""
    cosine: float
    """Mean of its cosines with the states."""
    abs_cosine: float
    """Mean of their absolute values."""


def account(direction: Tensor, subspace: Principal, states: Tensor) -> Offset:
    """Compare a direction with (M, D) states and with their principal subspace."""
    cosines = torch.nn.functional.normalize(states, dim=-1) @ direction
    return Offset(
        direction,
        len(subspace.energies),
        subspace.energy_of(direction),
        float(cosines.mean()),
        float(cosines.abs().mean()),
    )


def principal(states: Tensor) -> Principal:
    """Principal directions of (M, D) states, from their (D, D) second moment: memory does not grow with M."""
    width = states.shape[1]
    moment = torch.zeros(width, width, dtype=torch.float64)
    for chunk in torch.split(states, _CHUNK):
        moment += chunk.double().T @ chunk.double()
    energies, vectors = torch.linalg.eigh(moment)
    rank = int((energies > width * torch.finfo(torch.float64).eps * energies[-1]).sum())
    return Principal(energies.flip(0)[:rank], vectors.flip(1).T[:rank])


def paper_offset(random: Tensor, removed: Principal, weight: float) -> Tensor:
    """Eq. 8: a (D,) random vector with its part in the principal directions taken out, of length 1, float32.

    The paper leaves the nonlinearity and the perturbation open; here there is neither.
    """
    random = random.double()
    offset = random - weight * (removed.directions @ random) @ removed.directions
    unit: Tensor = (offset / offset.norm()).float()
    return unit


def code_offset(found: Principal, noise: Tensor) -> Tensor:
    """The direction of the published code, (D,) float32 of length 1; its (D, D) normal noise hardly matters.

    `I + 1000 sum_i sigmoid(S_i / S_0) v_i v_i^T` strengthens the principal directions where the paper takes them out;
    tanh saturates it, and six rounds of it are applied to a constant vector.
    """
    kept = found.first(_MAX_CODE_DIRECTIONS)
    values, directions = kept.energies.sqrt().float(), kept.directions.float()
    strength = _CODE_WEIGHT * torch.sigmoid(values / values[:1])
    width = noise.shape[0]
    matrix = torch.tanh(torch.eye(width) + directions.T @ (strength[:, None] * directions) + _CODE_NOISE * noise)
    vector = torch.full((width,), width**-0.5)
    for _ in range(_CODE_ROUNDS):
        vector = torch.tanh(vector @ matrix)
        vector = vector / (vector.norm() + 1e-6)
    unit: Tensor = vector / vector.norm()
    return unit
