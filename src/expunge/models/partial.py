"""Starting the forward pass at a block: what lies below the lowest trained weight is computed once for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel

_TOKEN_BUDGET = 4096


class _Reached(Exception):
    """Carries nothing; the hook has kept what it saw."""


class BlockInputs:
    """The hidden states that enter one block, kept for every row of a data set while the blocks below are frozen.

    They are computed when first asked for, which may be during training: what lies below does not move.
    The values are those of a full forward up to float32 rounding: a matrix product may round differently in a batch of
    another shape.

    Args:
        model: its blocks below `first` must not change from now on.
        first: index of the block; at least 1.
        sequences: the encoded rows.
    """

    def __init__(self, model: LanguageModel, first: int, sequences: Sequence[Encoded]) -> None:
        self.first = first
        self._blocks = [block for _, block in model.blocks()]
        self._model = model
        self._sequences = sequences

    @cached_property
    def _rows(self) -> list[Tensor]:
        """Lazy: a loss that looks at other rows only never needs them."""
        return self._compute(self._model, self._sequences)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """(B, T, D) inputs of the block for those rows, right-padded with zeros."""
        return nn.utils.rnn.pad_sequence([self._rows[index] for index in indices], batch_first=True)

    @contextmanager
    def entered(self, indices: Sequence[int]) -> Iterator[None]:
        """Within this block of code a forward pass skips the lower blocks and takes the kept states instead."""
        hidden = self.batch(indices)
        for block in self._blocks[: self.first]:
            block.forward = _hand_through
        handle = self._blocks[self.first].register_forward_pre_hook(_Replace(hidden), with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            for block in self._blocks[: self.first]:
                del block.forward

    @torch.no_grad()
    def _compute(self, model: LanguageModel, sequences: Sequence[Encoded]) -> list[Tensor]:
        rows: list[Tensor] = [torch.empty(0)] * len(sequences)
        seen: list[Tensor] = []

        def keep(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            seen.append(arguments[0] if arguments else options["hidden_states"])
            raise _Reached

        handle = self._blocks[self.first].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            for indices in by_length([len(sequence.ids) for sequence in sequences], _TOKEN_BUDGET):
                batch = collate([sequences[index] for index in indices], indices).to(model.device)
                try:
                    with model.evaluating(), model.autocast():
                        model.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
                except _Reached:
                    pass
                hidden = seen.pop()
                for row, index in enumerate(indices):
                    rows[index] = hidden[row, : len(sequences[index].ids)].clone()
        finally:
            handle.remove()
        return rows


class _Replace:
    """A forward pre-hook that gives a block other hidden states than it was called with."""

    def __init__(self, hidden: Tensor) -> None:
        self._hidden = hidden

    def __call__(
        self, _: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if arguments:
            return (self._hidden, *arguments[1:]), options
        return arguments, {**options, "hidden_states": self._hidden}


def _hand_through(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def first_trained_block(model: LanguageModel) -> int:
    """Index of the lowest block that holds a trainable weight; 0 when one lies outside the blocks."""
    prefixes = [f"{prefix}." for prefix, _ in model.blocks()]
    names = [name for name, parameter in model.base.named_parameters() if parameter.requires_grad]
    homes = [next((index for index, prefix in enumerate(prefixes) if name.startswith(prefix)), 0) for name in names]
    return min(homes, default=0)
