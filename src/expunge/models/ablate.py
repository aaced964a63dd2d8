"""A model that cannot use some directions of one block's output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.models.base import LanguageModel
from expunge.models.sites import check_states
from expunge.numerics.token import widen


@contextmanager
def ablated(model: LanguageModel, layer: int, directions: Tensor) -> Iterator[None]:
    """Within this block of code the output of one block of the model has no part along some directions.

    `h <- h - (h . u) u` at every token, for several directions with an orthonormal basis of theirs.

    Args:
        model: any model.
        layer: index of the block.
        directions: (K, D), linearly independent, of any length.
    """
    check_states(model)
    basis = torch.linalg.qr(widen(directions.cpu()).mT).Q.to(model.device)  # MPS has no QR

    def remove(_: nn.Module, __: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        with torch.autocast(model.device.type, enabled=False):
            wide = widen(hidden)
            kept = (wide - (wide @ basis.to(wide)) @ basis.to(wide).mT).to(hidden)
        return kept if isinstance(output, Tensor) else (kept, *output[1:])

    handle = model.blocks()[layer][1].register_forward_hook(remove)
    try:
        yield
    finally:
        handle.remove()
