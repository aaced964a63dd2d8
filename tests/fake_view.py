"""A `losses.base.View` of chosen logits, in whatever precision they come: for arithmetic that is done by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from expunge.data.batch import Batch
from expunge.data.encode import Encoded
from expunge.losses.base import RowSet


class FakeView:
    """Logits (N, V) for the labels of B rows; computed in the dtype of `logits`, unlike the float32 of the real one."""

    epoch = 0
    others: FakeView | None = None
    """What `over` gives; `asked` is then what it was asked for."""
    asked: tuple[int, ...] = ()

    def __init__(self, logits: Tensor, labels: Sequence[Sequence[int]], reference: Tensor | None = None) -> None:
        rows = [row for row, answer in enumerate(labels) for _ in answer]
        none = torch.zeros(len(labels), 1, dtype=torch.long)
        flat = torch.tensor([label for answer in labels for label in answer])
        self.batch = Batch(none, none, torch.tensor(rows), torch.zeros_like(flat), flat, tuple(range(len(labels))))
        self.epoch = 0
        self._logits = logits
        self._reference = reference

    def token_logp(self) -> Tensor:
        return self._logp(self._logits)

    def logits(self) -> Tensor:
        return self._logits

    def reference_token_logp(self) -> Tensor:
        return self._logp(self.reference_logits())

    def reference_logits(self) -> Tensor:
        assert self._reference is not None
        return self._reference

    def over(self, rows: RowSet, indices: Sequence[int]) -> FakeView:
        assert self.others is not None, "chosen logits say nothing of other rows; see BigramView"
        self.asked = tuple(indices)
        return self.others

    def _logp(self, logits: Tensor) -> Tensor:
        return torch.log_softmax(logits, -1).gather(1, self.batch.labels[:, None])[:, 0]


class BigramView(FakeView):
    """Encoded rows as a model sees them whose next token depends on the last one alone: logits (V, V) for all rows."""

    def __init__(
        self,
        table: Tensor,
        sequences: Sequence[Encoded],
        reference: Tensor | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        last = [row.ids[place - 1] for row in sequences for place in row.places]
        super().__init__(table[last], [row.labels for row in sequences], None if reference is None else reference[last])
        self.batch = replace(self.batch, indices=self.batch.indices if indices is None else tuple(indices))
        self._tables = (table, reference)

    def over(self, rows: RowSet, indices: Sequence[int]) -> BigramView:
        table, reference = self._tables
        return BigramView(table, [rows.sequences[index] for index in indices], reference, indices)


def view_of(probabilities: Sequence[Sequence[float]], reference: Sequence[Sequence[float]] | None = None) -> FakeView:
    """Rows whose labels have these probabilities: each label is token 0 of two, in float64."""
    labels = [[0] * len(row) for row in probabilities]
    return FakeView(_two_tokens(probabilities), labels, None if reference is None else _two_tokens(reference))


def _two_tokens(rows: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([[p, 1 - p] for row in rows for p in row], dtype=torch.float64).log()
