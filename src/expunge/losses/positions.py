"""Rows laid out anew for losses that count more positions than those of the answer."""

from __future__ import annotations

from typing import Any, Literal

from expunge.core.errors import UserError
from expunge.data.encode import Encoded
from expunge.losses.base import Setup
from expunge.models.forward import Needs, RowSet, row_set

PositionScope = Literal["question+answer", "answer", "padded"]


def wider_rows(setup: Setup, config: Any, slot: str, needs: Needs, *, after_last: bool = False) -> RowSet | None:
    """The rows of a stream with a label after each position of a scope; none where the answers are the scope.

    Args:
        setup: the model and the rows.
        config: has `scope` and `padded_length`.
        slot: names the option in messages.
        needs: what the loss needs of the original model.
        after_last: the last token of a row is a position too, although nothing follows it.

    Raises:
        UserError: `padded_length` exceeds what the model takes.
    """
    if config.scope == "answer":
        return None
    encoder = setup.model.encoder
    rows = [Encoded(row.ids, 1) for row in setup.sequences]
    if config.scope == "padded":
        length = config.padded_length
        if length + after_last > encoder.max_length:
            raise UserError(
                f"{slot}.padded_length: {length} tokens, the limit is {encoder.max_length - after_last} "
                "(model.max_length)"
            )
        rows = [_padded(row, encoder.end_id, length) for row in rows]
    if after_last:
        rows = [Encoded((*row.ids, encoder.end_id), 1, num_padding=row.num_padding + 1) for row in rows]
    return row_set(setup.model, rows, needs, reused=setup.epochs > 1)


def _padded(row: Encoded, end_id: int, length: int) -> Encoded:
    """A row filled up with end tokens that nothing attends to, or cut off: `length - 1` positions."""
    missing = max(0, length - len(row.ids))
    return Encoded((*row.ids, *[end_id] * missing)[:length], 1, num_padding=missing)
