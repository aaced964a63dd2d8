"""The retain KL, worked by hand and on the tiny model."""

import copy
import math

import pytest
import torch
from fake_view import view_of

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import CachedReference, Forward, RowSet
from expunge.numerics.token import Reduction
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


def test_nll_is_added() -> None:
    """3/4 K, and half the mean over rows of their mean NLL: ((ln 4 + ln 2) / 2 + ln 4) / 2."""
    view = view_of([[1 / 4, 1 / 2], [1 / 4]], [[1 / 2, 1 / 2], [1 / 2]])
    loss = KL(KL.Config(nll_weight=0.5)).loss(view)
    nll = (1.5 * math.log(2) + 2 * math.log(2)) / 2
    assert loss.item() == pytest.approx(3 / 4 * QUARTER + nll / 2, abs=1e-6)


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


def test_all_positions_of_padded_rows(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    """As the published code: rows filled with end tokens to one length, the mean over every position."""
    rows = [tiny.encoder.example(row) for row in examples["retain"][:3]]
    length = max(len(row.ids) for row in rows) + 5
    loss = KL(KL.Config(scope="padded", padded_length=length, reduction="token_mean"))
    loss.prepare(Setup(tiny, examples["retain"][:3], rows, "seed", 1))
    ids = torch.full((3, length), tiny.encoder.end_id)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, : len(row.ids)] = 1
    with torch.no_grad():
        before = tiny.network(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        for weight in tiny.network.parameters():
            weight.mul_(1.05)
        after = tiny.network(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    found = loss.loss(Forward(tiny, collate(rows, range(3)), RowSet(rows)))
    assert found.item() == pytest.approx(float((before.exp() * (before - after)).sum(-1).mean()), rel=1e-4)
    assert loss.num_tokens(collate(rows, range(3)), 0) == 3 * length
    with pytest.raises(UserError, match=r"retain\.padded_length: 100000 tokens"):
        KL(KL.Config(scope="padded", padded_length=100_000)).prepare(Setup(tiny, (), rows, "seed", 1))
