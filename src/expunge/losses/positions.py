"""Losses over more positions than those of the answer: their rows are laid out anew."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from expunge.core.errors import UserError
from expunge.data.batch import Batch
from expunge.data.encode import Encoded
from expunge.losses.base import Loss, Setup, TokenLossConfig, View
from expunge.models.forward import RowSet, row_set

PositionScope = Literal["question+answer", "answer", "padded"]


class PositionsConfig(TokenLossConfig):
    """Which positions count."""

    scope: PositionScope = Field(
        "answer", description="Which next tokens count; padded: all up to padded_length, as in the official code"
    )
    padded_length: int = Field(
        500, ge=2, description="Tokens of a row with scope padded: filled with end tokens without attention, or cut"
    )


class PositionsLoss(Loss):
    """A loss over the positions of its `scope`."""

    after_last = False
    """Whether the last token of a row is a position too, although nothing follows it."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._rows: RowSet | None = None
        """The rows with a label after each position; None where the answers are the scope."""

    def prepare(self, setup: Setup) -> None:
        """Lay the rows out anew where more than the answers count.

        Raises:
            UserError: `padded_length` exceeds what the model takes.
        """
        if self.config.scope != "answer":
            rows = _rows(setup, self.config, self.slot, int(self.after_last))
            self._rows = row_set(setup.model, rows, type(self).needs, reused=setup.epochs > 1)

    def num_tokens(self, batch: Batch, epoch: int) -> int:
        """The positions that count."""
        if self._rows is None:
            return super().num_tokens(batch, epoch)
        return sum(len(self._rows.sequences[index].labels) for index in batch.indices)

    def wide(self, view: View) -> View:
        """The same rows with a label after each position of the scope."""
        return view if self._rows is None else view.over(self._rows, view.batch.indices)


def _rows(setup: Setup, config: PositionsConfig, slot: str, extra: int) -> list[Encoded]:
    """Rows with a label after each position, and `extra` end tokens as last labels."""
    encoder = setup.model.encoder
    rows = [Encoded(row.ids, 1) for row in setup.sequences]
    if config.scope == "padded":
        length, longest = config.padded_length, encoder.max_length - extra
        if length > longest:
            raise UserError(f"{slot}.padded_length: {length} tokens, the limit is {longest} (model.max_length)")
        rows = [_padded(row, encoder.end_id, length) for row in rows]
    return [Encoded((*row.ids, *[encoder.end_id] * extra), 1, num_padding=row.num_padding + extra) for row in rows]


def _padded(row: Encoded, end_id: int, length: int) -> Encoded:
    """A row filled up with end tokens that nothing attends to, or cut off: `length - 1` positions."""
    missing = max(0, length - len(row.ids))
    return Encoded((*row.ids, *[end_id] * missing)[:length], 1, num_padding=missing)
