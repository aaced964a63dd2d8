"""A forward pass that starts at the lowest trained block is the full one."""

from __future__ import annotations

import torch

from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet
from expunge.models.partial import BlockInputs, first_trained_block

ROWS = [Encoded((5, 6, 7, 8, 9, 10), 3), Encoded((11, 12, 13), 1), Encoded((3, 1, 4, 1, 5, 9, 2, 6), 4)]


def test_every_architecture_gives_the_same_logits_from_kept_block_inputs(random_model: LanguageModel) -> None:
    inputs = BlockInputs(random_model, 1, ROWS)
    batch = collate([ROWS[2], ROWS[0]], [2, 0])
    with torch.no_grad():
        full = Forward(random_model, batch).logits()
        started = Forward(random_model, batch, RowSet(ROWS, inputs=inputs)).logits()
    torch.testing.assert_close(started, full, rtol=1e-5, atol=1e-5)


def test_lower_blocks_are_not_run_and_come_back_afterwards(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    inputs = BlockInputs(tiny, 2, rows)
    inputs.batch(range(4))  # taken before the lower block is changed
    batch = collate(rows, range(4))
    with torch.no_grad():
        before = Forward(tiny, batch).token_logp()
        tiny.blocks()[0][1].mlp.down_proj.weight.mul_(5)  # type: ignore[union-attr, operator]
        started = Forward(tiny, batch, RowSet(rows, inputs=inputs)).token_logp()
        full = Forward(tiny, batch).token_logp()
    torch.testing.assert_close(started, before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(full, before, atol=1e-2)


def test_gradients_of_trained_blocks_are_those_of_the_full_pass(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    prefix = tiny.blocks()[1][0]
    tiny.freeze_but([name for name, _ in tiny.network.named_parameters() if name.startswith(f"{prefix}.")])
    assert first_trained_block(tiny) == 1
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    batch = collate(rows, range(4))
    gradients = []
    for inputs in (None, BlockInputs(tiny, 1, rows)):
        tiny.network.zero_grad()
        Forward(tiny, batch, RowSet(rows, inputs=inputs)).token_logp().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in tiny.trainable() if parameter.grad is not None])
    assert len(gradients[0]) == len(tiny.trainable())
    for full, started in zip(*gradients, strict=True):
        torch.testing.assert_close(started, full, rtol=1e-4, atol=1e-5)


def test_a_trained_embedding_means_that_nothing_can_be_kept(tiny: LanguageModel) -> None:
    tiny.freeze_but([name for name, _ in tiny.network.named_parameters()])
    assert first_trained_block(tiny) == 0
