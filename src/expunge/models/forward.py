"""The lazy forward pass that losses share: nothing is computed that no loss needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from expunge.data.batch import Batch, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.partial import (
    BlockStates,
    can_enter,
    entering,
    first_trained_block,
    for_each_batch,
    site_outputs,
    started,
    unpacked,
)
from expunge.models.sites import Site
from expunge.models.tensor_store import RowStore
from expunge.numerics.token import token_logp


@dataclass(frozen=True)
class Needs:
    """What must be kept of the original model before the first step; nothing else is computed."""

    reference_logp: bool = False
    """Token log-probabilities."""
    reference_logits: bool = False
    """Logits, from its cached final hidden states through its frozen head."""
    reference_hidden: tuple[int, ...] = ()
    """Outputs of these blocks."""
    site: Site = "hidden"
    """Whose: the blocks' own, or those of a part of them."""


@dataclass(frozen=True)
class RowSet:
    """Encoded rows, with what is kept of the original model for them."""

    sequences: Sequence[Encoded]
    reference: CachedReference | None = None
    inputs: BlockStates | None = None
    """What enters the lowest trained block, if the blocks below it are frozen: a forward starts there."""
    hidden: Mapping[tuple[int, Site], BlockStates] = field(default_factory=dict)
    """Outputs of blocks of the original model, or of parts of them."""


def row_set(
    model: LanguageModel,
    sequences: Sequence[Encoded],
    needs: Needs | None = None,
    *,
    reused: bool = True,
    inputs: BlockStates | None = None,
) -> RowSet:
    """Rows with the values that a loss needs; call it while the model is the original one.

    Args:
        model: the model, its trainable weights chosen.
        sequences: encoded rows.
        needs: what to keep of the original model. Default: nothing.
        reused: whether a row is passed through the model more than once, so that keeping states is worth it.
        inputs: what enters the lowest trained block on these rows, where that is known already.
    """
    first = first_trained_block(model)
    if inputs is None and first and reused:
        inputs = BlockStates(model, first, sequences)
    needs = needs or Needs()
    reference = None
    if needs.reference_logp or needs.reference_logits:
        head = _frozen_head(model) if needs.reference_logits else None
        reference = CachedReference(model, sequences, with_logits=needs.reference_logits, head=head, inputs=inputs)
    hidden: dict[tuple[int, Site], BlockStates] = {}
    below = inputs
    for layer in sorted(needs.reference_hidden):
        start = below if below and below.first <= layer else None
        hidden[layer, needs.site] = BlockStates(model, layer + 1, sequences, start, needs.site).compute()
        below = hidden.get((layer, "hidden"), below)
    return RowSet(sequences, reference, inputs, hidden)


def _frozen_head(model: LanguageModel) -> nn.Module | None:
    """A copy of the output matrix where training moves it; None where the model's own stays as it is."""
    if not any(parameter.requires_grad for parameter in model.output_matrix.parameters()):
        return None
    return copy.deepcopy(model.output_matrix).requires_grad_(False)


class Forward:
    """Values of the current model for one batch.

    The decoder runs once; the output matrix is applied at the N label positions only, never over prompt or padding.

    Args:
        model: the model being trained.
        batch: B rows with N labels.
        rows: the data set that `batch.indices` points into; None if the loss needs nothing of the original model.
        epoch: passes over the forget rows before this one.
    """

    def __init__(self, model: LanguageModel, batch: Batch, rows: RowSet | None = None, epoch: int = 0) -> None:
        self.model = model
        self.batch = batch
        self.epoch = epoch
        self._inputs = rows.inputs if rows else None
        self._reference = rows.reference if rows else None
        self._reference_states = rows.hidden if rows else {}
        self._outputs: dict[tuple[int, Site], Tensor] = {}
        self._logits: Tensor | None = None
        self._logp: Tensor | None = None

    @classmethod
    def of(cls, model: LanguageModel, rows: RowSet, indices: Sequence[int], epoch: int = 0) -> Forward:
        """Some rows of a data set, batched."""
        batch = collate([rows.sequences[index] for index in indices], indices)
        return cls(model, batch.to(model.device), rows, epoch)

    def over(self, rows: RowSet, indices: Sequence[int]) -> Forward:
        """The same model on other rows."""
        return Forward.of(self.model, rows, indices, self.epoch)

    def logits(self) -> Tensor:
        """(N, V) logits at the label positions."""
        if self._logits is None:
            with self.model.autocast(), self._start():
                self._logits = self.model.head(final_hidden(self.model, self.batch))
        return self._logits

    def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[Tensor]:
        """L tensors (B, T, D): outputs of blocks, ascending, or of a part of each; padding included."""
        new = [layer for layer in layers if (layer, site) not in self._outputs]
        if new:
            with self.model.autocast(), self._start(new[0]):
                found = site_outputs(self.model, self.batch, new, site)
            self._outputs.update({(layer, site): output for layer, output in zip(new, found, strict=True)})
        return [self._outputs[layer, site] for layer in layers]

    def reference_hidden(
        self, layers: Sequence[int], site: Site = "hidden", device: torch.device | None = None
    ) -> list[Tensor]:
        """L tensors (B, T, D): the same of the original model, float32; zeros at padding.

        They are kept on the CPU: with it for the device, nothing waits for an accelerator.
        """
        assert all((layer, site) in self._reference_states for layer in layers), (
            "the loss must declare what it needs of the reference"
        )
        return [self._reference_states[layer, site].batch(self.batch.indices, device) for layer in layers]

    def _start(self, layer: int | None = None) -> AbstractContextManager[None]:
        """Go on above the highest block whose output is known already, below `layer` if one is wanted."""
        known = [index for index, site in self._outputs if site == "hidden" and (layer is None or index < layer)]
        if known and can_enter(self.model):
            return entering(self.model, max(known) + 1, self._outputs[max(known), "hidden"])
        return started(self._inputs, self.batch.indices)

    def token_logp(self) -> Tensor:
        """(N,) log-probability of each label, float32."""
        if self._logp is None:
            self._logp = token_logp(self.logits(), self.batch.labels)
        return self._logp

    def reference_token_logp(self) -> Tensor:
        """(N,) the same of the original model."""
        assert self._reference is not None, "the loss must declare what it needs of the reference"
        return self._reference.token_logp(self.batch.indices)

    def reference_logits(self) -> Tensor:
        """(N, V) logits of the original model."""
        assert self._reference is not None, "the loss must declare what it needs of the reference"
        return self._reference.logits(self.batch.indices)


def final_hidden(model: LanguageModel, batch: Batch) -> Tensor:
    """Final hidden states at the positions that predict a label: (N, D)."""
    with unpacked(batch):
        output = model.decoder(input_ids=batch.input_ids, attention_mask=batch.attended, use_cache=False)
    hidden: Tensor = output.last_hidden_state
    return hidden[batch.rows, batch.positions]


@torch.no_grad()
def score_rows(
    model: LanguageModel,
    sequences: Sequence[Encoded],
    keep_hidden: bool = False,
    inputs: BlockStates | None = None,
) -> list[Tensor]:
    """Teacher-forced pass over rows, length-sorted, without gradient and in evaluation mode.

    Args:
        model: any model.
        sequences: R encoded rows.
        keep_hidden: give the final hidden states instead of log-probabilities.
        inputs: what enters a block on these rows, to start there.

    Returns:
        For each row, in the order given, (n,) token log-probabilities, or (n, D) final hidden states, float32.
    """
    results: list[Tensor] = [torch.empty(0)] * len(sequences)

    def keep(index: int, values: Tensor) -> None:
        results[index] = values.clone()

    score_each(model, sequences, keep_hidden, inputs, keep)
    return results


@torch.no_grad()
def score_each(
    model: LanguageModel,
    sequences: Sequence[Encoded],
    keep_hidden: bool,
    inputs: BlockStates | None,
    keep: Callable[[int, Tensor], None],
) -> None:
    """Call `keep` with each row's index and the values that `score_rows` returns for it."""

    def work(batch: Batch) -> None:
        with started(inputs, batch.indices):
            values = final_hidden(model, batch)
            values = values.float() if keep_hidden else token_logp(model.head(values), batch.labels)
        for index, value in zip(batch.indices, torch.split(values, list(batch.num_labels)), strict=True):
            keep(index, value)

    for_each_batch(model, sequences, "states" if keep_hidden else "score", work)


class CachedReference:
    """The original model's log-probabilities, or its final hidden states and output matrix, for one data set.

    Args:
        model: the original model, before any weight has moved.
        sequences: the encoded rows.
        with_logits: keep hidden states, to give logits back.
        head: frozen output matrix for `logits`.
        inputs: what enters a block on these rows, to start there.
    """

    def __init__(
        self,
        model: LanguageModel,
        sequences: Sequence[Encoded],
        *,
        with_logits: bool,
        head: nn.Module | None,
        inputs: BlockStates | None = None,
    ) -> None:
        self._model = model
        self._head = head
        self._hidden = None
        if with_logits:
            self._hidden = RowStore(len(sequences), model.state_memory)
            score_each(model, sequences, True, inputs, self._hidden.put)
        self._logp = None if with_logits else score_rows(model, sequences, inputs=inputs)
        self._labels = [torch.tensor(sequence.labels, device=model.device) for sequence in sequences]

    def token_logp(self, indices: Sequence[int]) -> Tensor:
        """(N,) log-probabilities of the labels of those rows, in order."""
        if self._logp is not None:
            return torch.cat([self._logp[index] for index in indices])
        return token_logp(self.logits(indices), torch.cat([self._labels[index] for index in indices]))

    @torch.no_grad()
    def logits(self, indices: Sequence[int]) -> Tensor:
        """(N, V) logits at the label positions of those rows, in order."""
        assert self._hidden is not None, "built without hidden states"
        with self._model.autocast():
            return self._model.head(self._hidden.joined(indices, self._model.device), self._head)
