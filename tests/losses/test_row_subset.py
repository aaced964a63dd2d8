"""Some rows of a batch are what they would be in a batch of their own."""

from __future__ import annotations

import torch

from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.losses.row_subset import RowSubset
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, Needs, row_set


def test_a_part_is_the_batch_of_its_rows(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    kept = row_set(tiny, rows, Needs(reference_logp=True, reference_logits=True))
    order = [2, 0, 3, 1]
    part = RowSubset(Forward(tiny, collate([rows[index] for index in order], order), kept, epoch=2), [1, 3])
    alone = Forward.of(tiny, kept, [0, 1], epoch=2)
    assert part.batch.indices == (0, 1)
    assert part.batch.num_rows == 2
    assert part.epoch == 2
    for name in ("rows", "positions", "labels"):
        assert torch.equal(getattr(part.batch, name), getattr(alone.batch, name))
    for name in ("token_logp", "logits", "reference_token_logp", "reference_logits"):
        torch.testing.assert_close(getattr(part, name)(), getattr(alone, name)(), rtol=1e-5, atol=1e-5)
