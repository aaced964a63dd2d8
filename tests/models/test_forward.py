"""The lazy forward and the cached reference."""

from __future__ import annotations

import copy

import pytest
import torch

from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.forward import CachedReference, Forward, score_rows


def test_head_and_decoder_run_once_and_at_label_positions_only(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """However often a loss asks: one decoder pass, one head pass over N label positions, none over prompt or pads."""
    rows = [tiny.encoder.example(row) for row in examples["forget"][:4]]
    decoded: list[torch.Size] = []
    headed: list[torch.Size] = []
    tiny.decoder.register_forward_hook(lambda _, __, output: decoded.append(output.last_hidden_state.shape))
    tiny.output_matrix.register_forward_hook(lambda _, inputs, __: headed.append(inputs[0].shape))
    forward = Forward(tiny, collate(rows, range(4)))
    assert not decoded
    for _ in range(2):
        forward.token_logp()
        forward.logits()
    assert decoded == [(4, max(len(row.ids) for row in rows), 96)]
    assert headed == [(sum(len(row.labels) for row in rows), 96)]


@pytest.mark.parametrize("with_logits", [True, False])
def test_reference_stays_what_the_model_was(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]], with_logits: bool
) -> None:
    """The cache is asked in another order than it was filled, after every weight, the head's too, has moved."""
    rows = [tiny.encoder.example(row) for row in examples["forget"][:5]]
    before = score_rows(tiny, rows)
    head = copy.deepcopy(tiny.output_matrix)
    reference = CachedReference(tiny, rows, with_logits=with_logits, head=head)
    with torch.no_grad():
        for weight in tiny.network.parameters():
            weight.mul_(1.3)
    assert not torch.allclose(score_rows(tiny, rows)[0], before[0], atol=0.01)
    found = reference.token_logp([3, 0, 4])
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.cat([before[3], before[0], before[4]]), rtol=0, atol=1e-5)


def test_scoring_leaves_no_trace(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    """Training mode is restored, no gradient is kept, dropout is off meanwhile: two scorings are equal to the bit."""
    rows = [tiny.encoder.example(row) for row in examples["forget"][:5]]
    tiny.network.train()
    for _, block in tiny.blocks():
        block.self_attn.attention_dropout = 0.5
    first, second = score_rows(tiny, rows), score_rows(tiny, rows)
    assert tiny.network.training
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert not first[0].requires_grad
