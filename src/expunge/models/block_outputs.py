"""Outputs of every block, from forward passes without the output matrix, and the logit lens on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from expunge.data.batch import Batch
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.hooks import leaving
from expunge.models.partial import entering, for_each_batch
from expunge.models.sites import Site, check_states, site_module
from expunge.models.tensor_store import RowStore, StateMemory
from expunge.numerics.token import token_logp

Pooling = Literal["last", "mean"]


@torch.no_grad()
def block_outputs(
    model: LanguageModel, sequences: Sequence[Encoded], pooling: Pooling, token_budget: int | None = None
) -> Tensor:
    """One vector for each row and block, without the output matrix.

    Args:
        model: any model of L blocks.
        sequences: R encoded rows.
        pooling: the output at a row's last token, or its mean over the row's tokens.
        token_budget: most padded tokens of a batch. Default: as many as the device has room for.

    Returns:
        (R, L, D) float32 on the CPU.
    """
    check_states(model)
    rows: list[Tensor] = [torch.empty(0)] * len(sequences)

    def work(batch: Batch) -> None:
        weights = _weights(batch, pooling)
        pooled: list[Tensor] = []

        def keep(hidden: Tensor) -> None:
            pooled.append(torch.einsum("bt,btd->bd", weights.to(hidden.device), hidden.float()).cpu())

        with ExitStack() as stack:
            for _, block in model.blocks():
                stack.enter_context(leaving(block, keep))
            model.decoder(input_ids=batch.input_ids, attention_mask=batch.attended, use_cache=False)
        for index, row in zip(batch.indices, torch.stack(pooled, dim=1), strict=True):
            rows[index] = row

    for_each_batch(model, sequences, "states", work, token_budget)
    return torch.stack(rows)


def label_states(
    model: LanguageModel,
    sequences: Sequence[Encoded],
    token_budget: int | None = None,
    memory: StateMemory | None = None,
) -> RowStore:
    """Outputs of every block at the positions that predict the labels.

    Args:
        model: any model of L blocks.
        sequences: R encoded rows.
        token_budget: most padded tokens of a batch. Default: as many as the device has room for.
        memory: limit on the memory of the states. Default: the model's own.

    Returns:
        For each row, in the order given, (L, N, D) float32 on the CPU, N its number of labels.
    """
    found = RowStore(len(sequences), memory or model.state_memory, torch.float32)

    def keep(index: int, states: Tensor) -> None:
        found.put(index, states[0])

    _site_states(model, sequences, ("hidden",), token_budget, keep)
    return found


def site_states(
    model: LanguageModel, sequences: Sequence[Encoded], sites: Sequence[Site], token_budget: int | None = None
) -> RowStore:
    """Outputs of parts of every block at the positions that predict the labels.

    Args:
        model: any model of L blocks.
        sequences: R encoded rows.
        sites: S parts.
        token_budget: most padded tokens of a batch. Default: as many as the device has room for.

    Returns:
        For each row, in the order given, (S, L, N, D) float32 on the CPU, N its number of labels.

    Raises:
        UserError: a block has no such part.
    """
    found = RowStore(len(sequences), model.state_memory, torch.float32)
    _site_states(model, sequences, sites, token_budget, found.put)
    return found


@torch.no_grad()
def _site_states(
    model: LanguageModel,
    sequences: Sequence[Encoded],
    sites: Sequence[Site],
    token_budget: int | None,
    keep: Callable[[int, Tensor], None],
) -> None:
    """Call `keep` with each row's index and the states that `site_states` returns for it."""
    modules = [site_module(model, layer, site) for layer in range(len(model.blocks())) for site in sites]

    def work(batch: Batch) -> None:
        outputs: dict[int, Tensor] = {}  # the parts of a block may run in any order

        def keep_output(place: int, hidden: Tensor) -> None:
            rows = hidden.reshape(*batch.input_ids.shape, -1)  # some parts flatten the rows
            outputs[place] = rows[batch.rows, batch.positions].float().cpu()

        with ExitStack() as stack:
            for place, module in enumerate(modules):
                stack.enter_context(leaving(module, partial(keep_output, place)))
            model.decoder(input_ids=batch.input_ids, attention_mask=batch.attended, use_cache=False)
        together = torch.stack([outputs[place] for place in range(len(modules))])
        for index, states in zip(batch.indices, torch.split(together, list(batch.num_labels), dim=1), strict=True):
            keep(index, states.view(-1, len(sites), *states.shape[1:]).transpose(0, 1))

    for_each_batch(model, sequences, "states", work, token_budget)


@torch.no_grad()
def read_states(model: LanguageModel, states: Tensor, labels: Tensor, chunk: int = 256) -> Tensor:
    """Log-probabilities that a model's final norm and output matrix assign from states of any block: the logit lens.

    Args:
        model: any model; the states may be of another one of the same width.
        states: (..., N, D) outputs of blocks at the positions that predict the labels.
        labels: (N,) tokens.
        chunk: states in one pass.

    Returns:
        (..., N) log-probability of each label, float32 on the CPU.
    """
    found = []
    flat = states.reshape(-1, states.shape[-1])
    every = labels.repeat(len(flat) // len(labels))
    for some, tokens in zip(torch.split(flat, chunk), torch.split(every, chunk), strict=True):
        ids = torch.zeros(len(some), 1, dtype=torch.long, device=model.device)
        given = some[:, None].to(model.device)
        with model.evaluating(), model.autocast(), entering(model, len(model.blocks()), given):
            hidden = model.decoder(input_ids=ids, use_cache=False).last_hidden_state[:, 0]
            found.append(token_logp(model.head(hidden), tokens.to(model.device)).cpu())
    return torch.cat(found).view(states.shape[:-1])


def _weights(batch: Batch, pooling: Pooling) -> Tensor:
    """(B, T) weights of positions, which add up to 1 in a row."""
    mask = batch.attention_mask.float()
    if pooling == "mean":
        return mask / mask.sum(1, keepdim=True)
    last = mask.sum(1).long() - 1
    return nn.functional.one_hot(last, mask.shape[1]).float()
