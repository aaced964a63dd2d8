"""Outputs of blocks, as diagnostics look at them."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Any

from torch import Tensor, nn

from expunge.data.batch import Batch, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.partial import block_output, entering


def outputs_above(model: LanguageModel, batch: Batch, layer: int, hidden: Tensor | None, last: int) -> list[Tensor]:
    """Outputs of the blocks above one, in full precision of the weights.

    Args:
        model: any model.
        batch: B rows.
        layer: the blocks above this one run; -1: all.
        hidden: (B, T, D) what that block gave; None with -1.
        last: the highest block that is wanted; those above do not run.

    Returns:
        For each block from `layer + 1` to `last`, (B, T, D).
    """
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    start = nullcontext() if hidden is None else entering(model, layer + 1, hidden)
    with ExitStack() as stack, start:
        for _, block in model.blocks()[layer + 1 : last]:
            stack.callback(block.register_forward_hook(keep).remove)
        top = block_output(model, batch, last)
    return [*seen, top]


def one_token(model: LanguageModel) -> Batch:
    """A row of one token whose id does not matter: its states are given."""
    return collate([Encoded((0,), 1)], [0]).to(model.device)
