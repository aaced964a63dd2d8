"""Simulated quantization: weights are rounded to a few levels and returned in their own dtype.

Only weights are rounded, as when a user loads a published model in 8 or 4 bits; activations are not. Nothing is packed,
since only the effect of rounding on the model's answers matters, which is the same on any device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from expunge.core.errors import UserError
from expunge.core.records import Frozen
from expunge.models.base import LanguageModel
from expunge.models.matrices import block_matrices
from expunge.models.temporary_weights import changed_weights, each_matrix
from expunge.models.weight_backup import WeightBackup
from expunge.numerics.token import widen

Levels = Literal["int8", "int4", "nf4"]

_BITS: dict[Levels, int] = {"int8": 8, "int4": 4}
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The sixteen levels of 4-bit NormalFloat (arXiv:2305.14314, appendix E)."""
NF4_BLOCK = 64
"""Weights that share a scale, as bitsandbytes has it."""


class Quantization(Frozen):
    """How weights are rounded."""

    levels: Levels = Field("nf4", description="int8 or int4: even steps; nf4: the 16 levels of 4-bit NormalFloat")
    group: int | None = Field(
        None, ge=1, description="Weights that share a scale; none: a whole output channel, and 64 for nf4"
    )
    library: Literal["bitsandbytes"] | None = Field(
        None, description="Whose rounding, for nf4 and int8 by channel; none: our own, alike on any device"
    )

    @model_validator(mode="after")
    def _offered(self) -> Quantization:
        if self.library and (self.levels == "int4" or (self.levels == "int8" and self.group is not None)):
            raise ValueError(f"{self.library} has no {self}: it rounds to nf4, and to int8 by whole output channels")
        return self

    def __str__(self) -> str:
        name = self.levels if self.group is None else f"{self.levels} in groups of {self.group}"
        return name if self.library is None else f"{name} by {self.library}"

    def check_library(self) -> None:
        """Refuse a library that is not there.

        Raises:
            UserError: what to install.
        """
        if self.library is not None and find_spec(self.library) is None:
            raise UserError(f"quantization: {self} needs a package that is not installed: pip install {self.library}")


def quantize(weight: Tensor, how: Quantization) -> Tensor:
    """A weight matrix rounded and turned back into its own dtype: (O, I) -> (O, I), O output channels.

    Raises:
        UserError: the library that is named is not installed.
    """
    if how.library is not None:
        return _by_bitsandbytes(weight, how)
    if how.levels == "nf4":
        return quantize_nf4(weight, how.group or NF4_BLOCK)
    return quantize_absmax(weight, _BITS[how.levels], how.group)


def quantize_absmax(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Round to the nearest of `2^bits - 1` even steps around 0, whose ends are the largest magnitude.

    Args:
        weight: (O, I).
        bits: at least 2.
        group: inputs of a channel that share a scale; the last group may be smaller. Default: all of them.

    Returns:
        (O, I) in the dtype of `weight`.
    """
    top = (1 << (bits - 1)) - 1

    def rounded(scaled: Tensor) -> Tensor:
        return torch.round(scaled * top) / top

    groups = torch.split(weight, group or weight.shape[1], dim=1)
    return torch.cat([_scaled(part, rounded) for part in groups], dim=1)


def quantize_nf4(weight: Tensor, block: int = NF4_BLOCK) -> Tensor:
    """Round to the nearest level of 4-bit NormalFloat, scaled by the largest magnitude of each block.

    Args:
        weight: any shape; its numbers are read in order, so that a block may reach over the end of a row.
        block: numbers that share a scale, the last block perhaps fewer.

    Returns:
        The shape and dtype of `weight`.
    """
    levels = torch.tensor(NF4_LEVELS, device=weight.device)
    midpoints = (levels[1:] + levels[:-1]) / 2

    def rounded(scaled: Tensor) -> Tensor:
        return levels.to(scaled)[torch.bucketize(scaled, midpoints.to(scaled))]

    flat = weight.flatten()
    whole = len(flat) // block * block
    parts = [_scaled(flat[:whole].view(-1, block), rounded).flatten(), _scaled(flat[None, whole:], rounded)[0]]
    return torch.cat(parts).view(weight.shape)


def _by_bitsandbytes(weight: Tensor, how: Quantization) -> Tensor:
    how.check_library()
    from bitsandbytes import functional

    if how.levels == "nf4":
        packed, state = functional.quantize_4bit(
            weight.contiguous(), blocksize=how.group or NF4_BLOCK, quant_type="nf4"
        )
        found: Tensor = functional.dequantize_4bit(packed, state)
    else:
        packed, scale, _ = functional.int8_vectorwise_quant(weight.half())
        found = functional.int8_vectorwise_dequant(packed, scale)
    return found.to(weight.dtype)


@contextmanager
def quantized(model: LanguageModel, how: Quantization, kept: WeightBackup | None = None) -> Iterator[float]:
    """Within this block of code the matrices of a model's blocks have rounded weights.

    Each matrix of a stack of experts is rounded separately. Embeddings, norms, biases, routers and the output matrix
    stay, as in bitsandbytes. An adapter is merged first, since that is what would be published. Afterwards every weight
    is what it was, to the bit.

    Args:
        model: any model.
        how: levels and groups.
        kept: as in `changed_weights`.

    Yields:
        The share of the weights of the decoder blocks that was rounded.

    Raises:
        UserError: the blocks hold no matrix.
    """
    matrices = block_matrices(model)
    if not matrices:
        raise UserError(f"model: the blocks of {type(model.base).__name__} hold no matrix to quantize")

    def rounded(name: str, weight: Tensor) -> Tensor | None:
        if name not in matrices:
            return None
        return each_matrix(matrices[name], weight, lambda matrix: quantize(matrix, how))

    with changed_weights(model, rounded, kept) as share:
        yield share


def _scaled(groups: Tensor, rounded: Callable[[Tensor], Tensor]) -> Tensor:
    """Round each row of (G, N) on a scale where its largest magnitude is 1; a row of zeros stays."""
    if not groups.numel():
        return groups
    wide = widen(groups)
    scale = wide.abs().amax(dim=-1, keepdim=True)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (rounded(wide / scale) * scale).to(groups.dtype)
