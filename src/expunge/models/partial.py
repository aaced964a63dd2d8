"""Forward passes over some of the blocks only.

The outputs of the blocks below the lowest trained weight are computed once for each row; blocks above the highest one
whose output is needed never run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import masking_utils

from expunge.core.errors import UserError
from expunge.data.batch import Batch, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.batches import Pass, in_batches
from expunge.models.hooks import hand_through, leaving, replaced_forward
from expunge.models.shared_passes import same_results
from expunge.models.sites import Site, check_states, site_module
from expunge.models.tensor_store import RowStore

_ENTERED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Network -> the answer of `can_enter`."""
_FIND_PACKED = "find_packed_sequence_indices"


class _Reached(Exception):
    """Ends a forward pass after the last block whose output is needed."""


def for_each_batch(
    model: LanguageModel,
    sequences: Sequence[Encoded],
    kind: Pass,
    work: Callable[[Batch], None],
    token_budget: int | None = None,
) -> None:
    """Call `work` for all rows in batches of similar length, in evaluation mode and under autocast.

    Args:
        model: any model.
        sequences: encoded rows; `Batch.indices` points into them.
        kind: of pass.
        work: called with each batch, on the model's device. Called again for the same rows in smaller batches if it
            runs out of memory, so it must keep nothing before it is done.
        token_budget: most padded tokens of a batch. Default: as many as the device has room for.
    """

    def run(indices: Sequence[int], _: int) -> None:
        batch = collate([sequences[index] for index in indices], indices).to(model.device)
        with model.evaluating(), model.autocast():
            work(batch)

    in_batches(model.budget, model.device, kind, [len(row.ids) for row in sequences], run, most=token_budget)


@contextmanager
def entering(model: LanguageModel, first: int, hidden: Tensor) -> Iterator[None]:
    """Start the forward passes of a block of code at block `first`, from given hidden states.

    Args:
        model: any model.
        first: index of the first block that runs, at least 1; the number of blocks runs none but the final norm.
        hidden: (B, T, D) output of the block below.

    Raises:
        UserError: blocks of this architecture need more than the output of the one below.
    """
    check_states(model)
    if first < len(model.blocks()) and not can_enter(model):
        raise UserError(
            f"model: blocks of {type(model.base).__name__} read more than the hidden states of the one below, so no "
            "pass can start among them"
        )
    with _skipping(model, first, hidden):
        yield


@contextmanager
def _skipping(model: LanguageModel, first: int, hidden: Tensor) -> Iterator[None]:
    below = [block for _, block in model.blocks()[:first]]
    extras = model.layout.extras
    with ExitStack() as stack:
        for index, block in enumerate(below):
            given = hidden if index == first - 1 else None
            stack.enter_context(replaced_forward(block, hand_through(extras[index], given)))
        yield


@torch.no_grad()
def can_enter(model: LanguageModel) -> bool:
    """Whether passes that start in the middle, or at the last block of each kind, equal whole passes."""
    if model.base not in _ENTERED:
        ids = model.probe_ids(5, 2)
        blocks = [block for _, block in model.blocks()]
        last_of_kind = {_kind(block): place for place, block in enumerate(blocks)}
        starts = sorted({max(1, len(blocks) // 2), *last_of_kind.values()} - {0, len(blocks)})

        def plain() -> Tensor:
            hidden: Tensor = model.decoder(input_ids=ids, use_cache=False).last_hidden_state
            return hidden

        def entered() -> list[Tensor]:
            outputs: list[Tensor] = []
            with ExitStack() as stack:
                for block in blocks:
                    stack.enter_context(leaving(block, lambda output: outputs.append(output.clone())))
                plain()
            found = []
            for first in starts:
                with _skipping(model, first, outputs[first - 1]):
                    found.append(plain())
            return found

        with model.evaluating(), model.autocast():
            works = model.layout.one_vector and same_results(model, entered, lambda: [plain()] * len(starts))
        _ENTERED[model.base] = works
    return _ENTERED[model.base]


def _kind(block: nn.Module) -> tuple[object, ...]:
    """Types and settings of a block's parts, e.g. a window: blocks of one kind compute alike."""
    return tuple(
        (name, type(part), *sorted((key, value) for key, value in vars(part).items() if isinstance(value, bool | str)))
        for name, part in block.named_modules()
    )


def block_output(model: LanguageModel, batch: Batch, layer: int) -> Tensor:
    """(B, T, D) output of one block; the blocks above do not run."""
    return site_outputs(model, batch, (layer,), "hidden")[0]


def site_outputs(model: LanguageModel, batch: Batch, layers: Sequence[int], site: Site) -> list[Tensor]:
    """Outputs of some blocks or of a part of each, from one pass that ends with the last of them.

    Args:
        model: any model.
        batch: B rows.
        layers: L blocks, ascending.
        site: whose output: the block's own, or that of its feed-forward or attention part.

    Returns:
        L tensors (B, T, D).

    Raises:
        UserError: a block has no such part.
    """
    seen: list[Tensor] = []

    def keep(output: Tensor) -> None:
        seen.append(output.reshape(*batch.input_ids.shape, -1))  # some parts flatten the rows
        if len(seen) == len(layers):
            raise _Reached

    with ExitStack() as stack, suppress(_Reached), unpacked(batch):
        for layer in layers:
            stack.enter_context(leaving(site_module(model, layer, site), keep))
        model.decoder(input_ids=batch.input_ids, attention_mask=batch.attended, use_cache=False)
    return seen


@contextmanager
def unpacked(batch: Batch) -> Iterator[None]:
    """Let passes without a mask within this block run without waiting for the device.

    transformers would read the position ids to see whether a row packs several sequences; ours never do.
    """
    find_packed = getattr(masking_utils, _FIND_PACKED, None)
    if batch.attended is not None or find_packed is None:
        yield
        return
    setattr(masking_utils, _FIND_PACKED, lambda position_ids: None)
    try:
        yield
    finally:
        setattr(masking_utils, _FIND_PACKED, find_packed)


class BlockStates:
    """The hidden states that enter one block, or the output of a part of the block below, kept for every row.

    They are computed on first use. If all weights below the block are frozen, that may be at any time; states of the
    original model must be computed (`compute`) before a weight below has moved. A pass that starts here continues in
    the dtype of the block's output, so its values are those of a full forward pass up to rounding: a matrix product may
    round differently in a batch of another shape.

    Args:
        model: any model.
        first: index of the block, at least 1; the number of blocks stands for the output of the last one.
        sequences: the encoded rows.
        start: the same for a lower block, to start there.
        site: whose output is kept; only a whole block's can be entered with.
    """

    def __init__(
        self,
        model: LanguageModel,
        first: int,
        sequences: Sequence[Encoded],
        start: BlockStates | None = None,
        site: Site = "hidden",
    ) -> None:
        self.first = first
        self.model = model
        self._sequences = sequences
        self._start = start
        self._site = site

    def compute(self) -> BlockStates:
        """Compute them now."""
        _ = self._rows
        return self

    def batch(self, indices: Sequence[int], device: torch.device | None = None) -> Tensor:
        """(B, T, D) states of those rows, right-padded with zeros; on the model's or another device."""
        return self._rows.batch(indices, device or self.model.device)

    @contextmanager
    def entered(self, indices: Sequence[int]) -> Iterator[None]:
        """Within this block of code a forward pass of those rows starts here."""
        rows = self._rows
        with entering(self.model, self.first, rows.batch(indices, self.model.device).to(rows.given)):
            yield

    @cached_property
    @torch.no_grad()
    def _rows(self) -> RowStore:
        """Lazy, since a loss on other rows never needs them."""
        model = self.model
        rows = RowStore(len(self._sequences), model.state_memory)

        def work(batch: Batch) -> None:
            with started(self._start, batch.indices):
                (hidden,) = site_outputs(model, batch, (self.first - 1,), self._site)
            for row, index in enumerate(batch.indices):
                rows.put(index, hidden[row, : len(self._sequences[index].ids)])

        for_each_batch(model, self._sequences, "states", work)
        return rows


def started(states: BlockStates | None, indices: Sequence[int]) -> AbstractContextManager[None]:
    """Start the forward passes of a block of code at kept states of those rows, if there are any and it can be done."""
    return nullcontext() if states is None or not can_enter(states.model) else states.entered(indices)


def trained_blocks(model: LanguageModel) -> list[int]:
    """Indices of the blocks that hold a trainable weight, ascending; -1 for trainable weights outside the blocks."""
    prefixes = [f"{prefix}." for prefix, _ in model.blocks()]
    names = [name for name, parameter in model.base.named_parameters() if parameter.requires_grad]
    homes = {next((index for index, prefix in enumerate(prefixes) if name.startswith(prefix)), -1) for name in names}
    return sorted(homes)


def first_trained_block(model: LanguageModel) -> int:
    """Index of the lowest block that holds a trainable weight; 0 when one lies outside the blocks."""
    return max(0, min(trained_blocks(model), default=0))
