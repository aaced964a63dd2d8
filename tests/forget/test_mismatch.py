"""LLMU's forget loss, by hand and on the tiny model."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.forget.mismatch import Mismatch
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, score_rows


def test_ascent_on_the_answer_and_descent_on_another_rows(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """The drawn answers are those of retain rows, others in each of two epochs; the loss is a weighted difference."""
    rows, retain = examples["forget"][:4], examples["retain"]
    encoded = [tiny.encoder.example(row) for row in rows]
    loss = Mismatch(Mismatch.Config(ascent_weight=0.5, mismatch_weight=2.0))
    loss.prepare(Setup(tiny, rows, encoded, "0/forget", 2, retain))
    known = {tiny.encoder.answered(rows[0], row.answer or "").labels for row in retain}
    assert all(sequence.labels in known for sequence in loss._rows.sequences)
    drawn = [[sequence.labels for sequence in loss._rows.sequences[start : start + 4]] for start in (0, 4)]
    assert drawn[0] != drawn[1]
    with tiny.evaluating(), torch.no_grad():
        found = loss.loss(Forward(tiny, collate(encoded[1:3], [1, 2]), RowSet(encoded), epoch=1))
    own, other = (
        torch.stack([logp.mean() for logp in score_rows(tiny, some)]).mean()
        for some in (encoded[1:3], loss._rows.sequences[5:7])
    )
    assert float(found) == pytest.approx(float(0.5 * own - 2 * other), abs=1e-4)
    assert float(loss.logs["mismatch_loss"]) == pytest.approx(-float(other), abs=1e-4)


def test_documents_and_unanswered_retain_rows_are_refused(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    text = Example("d", text="Some text.")
    with pytest.raises(UserError, match="row 'd': mismatch answers questions"):
        Mismatch(Mismatch.Config()).check([text])
    rows = examples["forget"][:1]
    setup = Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "s", 1)
    with pytest.raises(UserError, match="no retain row has an answer"):
        Mismatch(Mismatch.Config()).prepare(dataclasses.replace(setup, other_rows=[text]))
