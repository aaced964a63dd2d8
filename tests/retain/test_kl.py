"""The retain KL, worked by hand and on the tiny model."""

import copy
import math

import pytest
import torch
from fake_view import view_of

from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.losses.token import Reduction
from expunge.models.base import LanguageModel
from expunge.models.forward import CachedReference, Forward, RowSet
from expunge.retain.kl import KL

QUARTER = math.log(4 / 3) / 2
"""KL((1/2, 1/2) || (1/4, 3/4)) = 1/2 ln 2 + 1/2 ln(2/3)."""


@pytest.mark.parametrize(("reduction", "expected"), [("seq_mean", 3 / 4), ("sum", 1.0), ("token_mean", 2 / 3)])
def test_rows_of_two_positions_and_one(reduction: Reduction, expected: float) -> None:
    """Divergences K 0 | K with K = KL((1/2, 1/2) || (1/4, 3/4)).

    seq_mean: (K/2 + K) / 2 = 3/4 K. sum: (K + K) / 2 = K. token_mean: 2/3 K.
    """
    view = view_of([[1 / 4, 1 / 2], [1 / 4]], [[1 / 2, 1 / 2], [1 / 2]])
    loss = KL(KL.Config(reduction=reduction)).loss(view)
    assert loss.item() == pytest.approx(expected * QUARTER, abs=1e-6)


def test_starts_at_zero_and_pulls_back_to_the_original_alone(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """At the original weights the loss and its gradient vanish; moved weights are pulled, the frozen copy is not."""
    rows = [tiny.encoder.example(row) for row in examples["retain"][:4]]
    head = copy.deepcopy(tiny.output_matrix).requires_grad_(False)
    reference = CachedReference(tiny, rows, with_logits=True, head=head)
    batch = collate(rows, range(4))

    loss = KL(KL.Config()).loss(Forward(tiny, batch, RowSet(rows, reference)))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert all(weight.grad.abs().max() < 1e-3 for weight in tiny.trainable() if weight.grad is not None)

    with torch.no_grad():
        for weight in tiny.network.parameters():
            weight.mul_(1.1)
    tiny.network.zero_grad()
    moved = KL(KL.Config()).loss(Forward(tiny, batch, RowSet(rows, reference)))
    moved.backward()
    assert moved.item() > 1e-3
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in tiny.network.parameters())
    assert all(weight.grad is None for weight in head.parameters())
