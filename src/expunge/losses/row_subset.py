"""Some rows of a view: what has been computed for all of them serves each part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from expunge.data.batch import Batch, to_device
from expunge.losses.base import View
from expunge.models.forward import RowSet
from expunge.models.sites import Site


class RowSubset:
    """A `View` of some rows of another.

    Args:
        view: B rows.
        rows: which of them, as places in its batch, ascending.
    """

    def __init__(self, view: View, rows: Sequence[int]) -> None:
        whole = view.batch
        device = whole.rows.device
        ends = list(itertools.accumulate(whole.num_labels, initial=0))
        chosen = to_device(torch.tensor(rows), device)
        kept = to_device(
            torch.tensor([place for row in rows for place in range(ends[row], ends[row + 1])], dtype=torch.long), device
        )
        counts = [whole.num_labels[row] for row in rows]
        self._view = view
        self._chosen = chosen
        self._kept = kept
        self.epoch = view.epoch
        self.batch = Batch(
            whole.input_ids[chosen],
            whole.attention_mask[chosen],
            to_device(torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)), device),
            whole.positions[kept],
            whole.labels[kept],
            tuple(whole.indices[row] for row in rows),
            tuple(whole.lengths[row] for row in rows),
            tuple(counts),
            whole.right_padded,
        )

    def token_logp(self) -> Tensor:
        """(N,) log-probability of each label of these rows."""
        return self._view.token_logp()[self._kept]

    def logits(self) -> Tensor:
        """(N, V) logits at their label positions."""
        return self._view.logits()[self._kept]

    def reference_token_logp(self) -> Tensor:
        """(N,) log-probabilities of the original model."""
        return self._view.reference_token_logp()[self._kept]

    def reference_logits(self) -> Tensor:
        """(N, V) logits of the original model."""
        return self._view.reference_logits()[self._kept]

    def hidden(self, layers: Sequence[int], site: Site = "hidden") -> list[Tensor]:
        """L tensors (B, T, D): outputs of blocks on these rows."""
        return [output[self._chosen] for output in self._view.hidden(layers, site)]

    def reference_hidden(
        self, layers: Sequence[int], site: Site = "hidden", device: torch.device | None = None
    ) -> list[Tensor]:
        """L tensors (B, T, D): outputs of blocks of the original model."""
        return [output[self._chosen] for output in self._view.reference_hidden(layers, site, device)]

    def over(self, rows: RowSet, indices: Sequence[int]) -> View:
        """The same model on other rows."""
        return self._view.over(rows, indices)
