"""Padded batches with a flat list of labels, so that padding cannot enter a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.data.encode import Encoded


@dataclass(frozen=True)
class Batch:
    """B sequences, right-padded to T tokens, with N labels in all.

    Label j is token `labels[j]` of sequence `rows[j]`; the model predicts it at position `positions[j]`.
    """

    input_ids: Tensor
    """(B, T) int64."""
    attention_mask: Tensor
    """(B, T) int64, from lengths and never from pad ids: `pad == eos` is common."""
    rows: Tensor
    """(N,) int64, ascending."""
    positions: Tensor
    """(N,) int64."""
    labels: Tensor
    """(N,) int64."""
    indices: tuple[int, ...]
    """Which rows of the data set these are, for per-row caches."""
    lengths: tuple[int, ...] = ()
    """Attended tokens of each sequence, on the host; computed from the mask if not given."""
    num_labels: tuple[int, ...] = ()
    """Labels of each sequence, on the host; counted if not given."""
    right_padded: bool = False
    """Whether every token that counts comes before the padding of its row."""
    partners: tuple[int, ...] = ()
    """Of a batch of retain rows in training: the forget row that each is paired with."""

    def __post_init__(self) -> None:
        if not self.lengths:
            object.__setattr__(self, "lengths", tuple(self.attention_mask.sum(-1).flatten().tolist()))
        if not self.num_labels:
            counts = torch.bincount(self.rows, minlength=self.num_rows)
            object.__setattr__(self, "num_labels", tuple(counts.tolist()))

    @property
    def num_rows(self) -> int:
        """B."""
        return int(self.input_ids.shape[0])

    @property
    def attended(self) -> Tensor | None:
        """The attention mask for a network; None on an accelerator where no token before a padded one is masked.

        A causal model never attends to later tokens, so padding on the right needs no mask. Given one, transformers
        reads its values to see whether it is needed, which waits for the device in every pass.
        """
        return None if self.input_ids.device.type != "cpu" and self.right_padded else self.attention_mask

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; the host does not wait for the copies."""
        return Batch(
            to_device(self.input_ids, device),
            to_device(self.attention_mask, device),
            to_device(self.rows, device),
            to_device(self.positions, device),
            to_device(self.labels, device),
            self.indices,
            self.lengths,
            self.num_labels,
            self.right_padded,
            self.partners,
        )


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A copy that the host does not wait for where that is safe: to CUDA, through pinned memory."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def collate(sequences: Sequence[Encoded], indices: Sequence[int], pad_id: int = 0) -> Batch:
    """Batch encoded sequences.

    Args:
        sequences: B encoded rows.
        indices: their places in the data set.
        pad_id: id written into padding; its value reaches no result.
    """
    width = max(len(sequence.ids) for sequence in sequences)
    input_ids = torch.full((len(sequences), width), pad_id)
    mask = torch.zeros_like(input_ids)
    rows: list[int] = []
    positions: list[int] = []
    labels: list[int] = []
    for row, sequence in enumerate(sequences):
        length = len(sequence.ids)
        input_ids[row, :length] = torch.tensor(sequence.ids)
        mask[row, : length - sequence.num_padding] = 1
        rows += [row] * len(sequence.places)
        positions += [place - 1 for place in sequence.places]
        labels += sequence.labels
    return Batch(
        input_ids,
        mask,
        torch.tensor(rows),
        torch.tensor(positions),
        torch.tensor(labels),
        tuple(indices),
        tuple(len(sequence.ids) - sequence.num_padding for sequence in sequences),
        tuple(len(sequence.places) for sequence in sequences),
        not any(sequence.num_padding for sequence in sequences),
    )


def by_length(
    lengths: Sequence[int], token_budget: int, *, context: int = 0, enough: int | None = None
) -> list[list[int]]:
    """Indices grouped into batches of similar length whose padded size stays within a budget of tokens.

    Longest first, so that memory peaks in the first batch. A sequence longer than the budget is a batch of its own.

    Args:
        lengths: of the sequences.
        token_budget: of a batch.
        context: tokens that each sequence has in memory before its own.
        enough: a batch of this many tokens, padding included, takes no sequence that is more than an eighth shorter
            than its longest. Default: padding is never a reason to begin another batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        size = len(batches[-1]) if batches else 0
        fits = (size + 1) * (context + longest) <= token_budget
        if size and fits and (enough is None or size * longest < enough or 8 * lengths[index] >= 7 * longest):
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches
