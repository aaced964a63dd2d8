"""Hidden states of rows and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.batch import Batch, collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.losses.activations import ActivationSite, HiddenLossConfig, Scope, Tokens
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.models.partial import block_output, entering
from expunge.numerics.token import sequence_length, widen


def site_of(
    model: LanguageModel, rows: Sequence[Example], layer: int, tokens: Scope
) -> tuple[ActivationSite, list[Encoded]]:
    """The site of hidden states, as in losses, and the encoded rows."""
    sequences = [model.encoder.example(row) for row in rows]
    site = ActivationSite(HiddenLossConfig(layer=layer, tokens=tokens), Setup(model, rows, sequences, "", 1), "layer")
    return site, sequences


def mean_by_row(values: Tensor, tokens: Tokens) -> Tensor:
    """Mean over each row's tokens: (M, ...) -> (B, ...)."""
    sums = values.new_zeros(tokens.num_rows, *values.shape[1:]).index_add(0, tokens.rows, values)
    length = sequence_length(tokens.rows, tokens.num_rows)
    return sums / length.reshape(-1, *(1 for _ in values.shape[1:]))


@torch.no_grad()
def row_states(model: LanguageModel, rows: Sequence[Example], layer: int, tokens: Scope) -> Tensor:
    """(R, D) float32 output of a block, averaged over each row's tokens, on the CPU."""
    site, sequences = site_of(model, rows, layer, tokens)
    width = int(model.base.config.get_text_config().hidden_size)
    found = torch.empty(len(sequences), width)

    def work(indices: Sequence[int], _: int) -> None:
        batch = collate([sequences[index] for index in indices], indices).to(model.device)
        with model.autocast():
            hidden = block_output(model, batch, layer)
        chosen = site.tokens(batch)
        found[indices] = mean_by_row(chosen.of(hidden), chosen).cpu()

    in_batches(model.budget, model.device, "layers", [len(row.ids) for row in sequences], work)
    return found


def outputs_above(model: LanguageModel, batch: Batch, layer: int, hidden: Tensor | None, last: int) -> list[Tensor]:
    """Outputs of the blocks above one, in the model's precision; the given states enter in float32.

    Args:
        model: any model.
        batch: B rows.
        layer: the blocks above this one run; -1: all.
        hidden: (B, T, D) output of that block; None with -1.
        last: the highest block to run.

    Returns:
        For each block from `layer + 1` to `last`, (B, T, D).
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    start = nullcontext() if hidden is None else entering(model, layer + 1, widen(hidden))
    with ExitStack() as stack, model.autocast(), start:
        for _, block in model.blocks()[layer + 1 : last]:
            stack.callback(block.register_forward_hook(keep).remove)
        top = block_output(model, batch, last)
    return [*outputs, top]


def one_token(model: LanguageModel) -> Batch:
    """A row of one token; its id is irrelevant, since its states are given."""
    return collate([Encoded((0,), 1)], [0]).to(model.device)
