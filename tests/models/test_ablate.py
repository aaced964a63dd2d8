"""A direction that is taken out of one block's output is gone there, and there alone."""

from __future__ import annotations

import torch

from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.partial import block_output
from expunge.models.sites import ablated

BATCH = collate([Encoded((5, 6, 7, 8, 9, 10), 3), Encoded((11, 12, 13), 1)], range(2))


@torch.no_grad()
def test_every_architecture_gives_no_part_along_the_directions(random_model: LanguageModel) -> None:
    """`h . u = 0` for both of two slanted directions; what is orthogonal to them stays, and all of it afterwards."""
    directions = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 7
    basis = torch.linalg.qr(directions.mT).Q
    full, below = block_output(random_model, BATCH, 1), block_output(random_model, BATCH, 0)
    with ablated(random_model, 1, directions):
        found = block_output(random_model, BATCH, 1)
        torch.testing.assert_close(block_output(random_model, BATCH, 0), below, rtol=0, atol=0)
    size = float(full.norm(dim=-1).max())
    assert float((found @ directions.mT).abs().max()) < 1e-5 * size * float(directions.norm(dim=1).max())
    torch.testing.assert_close(found, full - (full @ basis) @ basis.mT, rtol=1e-4, atol=1e-5 * size)
    torch.testing.assert_close(block_output(random_model, BATCH, 1), full, rtol=0, atol=0)


@torch.no_grad()
def test_the_blocks_above_go_on_from_what_is_left(random_model: LanguageModel) -> None:
    direction = torch.eye(32)[:1]
    plain = random_model.network(input_ids=BATCH.input_ids).logits
    with ablated(random_model, 0, direction):
        changed = random_model.network(input_ids=BATCH.input_ids).logits
    assert not torch.allclose(plain, changed, atol=1e-3)
