"""Refusals: the sentences, and which of them answers which row in which epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.provenance import sha256_text
from expunge.core.records import Frozen
from expunge.data.batch import Batch
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.losses.base import Loss, Setup, View, refuse_documents
from expunge.models.forward import row_set

_SHIPPED = Path(__file__).with_name("refusals.txt")


class RefusalConfig(Frozen):
    """Option of every loss that draws refusals."""

    refusals: str = Field(
        "",
        description="File with one refusal a line; empty: the shipped ones. evaluate.kinds.refusals should name it too",
    )
    redraw: bool = Field(True, description="Draw a row's refusal anew in each epoch; false: one refusal for each row")


def load_refusals(path: str = "") -> tuple[str, ...]:
    """The sentences of a file, one per line; empty lines are skipped. Default: the shipped ones.

    Raises:
        UserError: no such file, not UTF-8 text, or no sentence in it.
    """
    file = Path(path) if path else _SHIPPED
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"refusals: {file}: no such file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"refusals: {file}: not UTF-8 text (byte {error.start})") from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise UserError(f"refusals: {file}: the file holds no sentence")
    return found


def draw_refusal(refusals: Sequence[str], seed: str, epoch: int, row: int) -> str:
    """The refusal of a row in an epoch, uniform over the sentences.

    A pure function of its arguments: a resumed run draws what an unbroken one would, whatever the batches are.
    """
    return refusals[int(sha256_text(seed, str(epoch), str(row)), 16) % len(refusals)]


class RefusalLoss(Loss):
    """Base of losses that draw a refusal for every question of their stream."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._refusals = load_refusals(config.refusals)

    def check(self, rows: Sequence[Example]) -> None:
        """Refuse documents: there is no question to refuse."""
        refuse_documents(rows, f"{type(self).__name__} answers questions with refusals")

    def prepare(self, setup: Setup) -> None:
        """Lay out every refusal that will be drawn, scored by the original model if the loss needs that."""
        self.check(setup.rows)
        self._num_rows = len(setup.rows)
        sequences = refused(setup, self._refusals, redraw=self.config.redraw)
        self._refused = row_set(setup.model, sequences, self.needs, reused=False)

    def refusals(self, view: View) -> View:
        """The questions of a view with the refusals of its epoch."""
        return view.over(self._refused, self._places(view.batch, view.epoch))

    def num_tokens(self, batch: Batch, epoch: int) -> int:
        """Those of the refusals."""
        return sum(len(self._refused.sequences[place].labels) for place in self._places(batch, epoch))

    def _places(self, batch: Batch, epoch: int) -> list[int]:
        return [epoch * self._num_rows + index for index in batch.indices]


def refused(setup: Setup, refusals: Sequence[str], *, redraw: bool = True) -> list[Encoded]:
    """Every row's question with the refusal drawn for it, epoch after epoch: row `i` of epoch `e` is `e * rows + i`.

    The labels are the whole refusal with its end token, even where the stream's own labels are keywords only.
    """
    encode = setup.model.encoder.answered
    return [
        encode(row, draw_refusal(refusals, setup.seed, epoch if redraw else 0, index))
        for epoch in range(setup.epochs)
        for index, row in enumerate(setup.rows)
    ]
