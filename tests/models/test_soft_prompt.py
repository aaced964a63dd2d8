"""Ids that stand for vectors: read like tokens everywhere, with gradients for the vectors."""

from __future__ import annotations

import torch

from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.causal_restore import input_embeddings
from expunge.models.continuations import continued
from expunge.models.forward import score_rows
from expunge.models.soft_prompt import soft_ids, softened

PLAIN = (5, 9, 11, 9, 6, 17)


def _vectors(model: LanguageModel) -> torch.Tensor:
    """The embeddings of the tokens that the first and the third place of `PLAIN` hold."""
    return input_embeddings(model, torch.tensor([PLAIN[0], PLAIN[2]])).detach()


def test_a_vector_that_is_a_tokens_embedding_reads_like_the_token(tiny: LanguageModel) -> None:
    soft = (-1, PLAIN[1], -2, *PLAIN[3:])
    assert soft_ids(2) == (-1, -2)
    expected = score_rows(tiny, [Encoded(PLAIN, 3)])[0]
    said = continued(tiny, [PLAIN], 6)
    with softened(tiny, _vectors(tiny)):
        torch.testing.assert_close(score_rows(tiny, [Encoded(soft, 3)])[0], expected)
        assert continued(tiny, [soft], 6) == said
    torch.testing.assert_close(score_rows(tiny, [Encoded(PLAIN, 3)])[0], expected, rtol=0, atol=0)


def test_rows_with_and_without_vectors_share_a_batch(tiny: LanguageModel) -> None:
    rows = [Encoded((-1, *PLAIN[1:]), 3), Encoded(PLAIN[1:4], 1)]
    with softened(tiny, _vectors(tiny)):
        together, alone = score_rows(tiny, rows), [score_rows(tiny, [row])[0] for row in rows]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_vectors_that_are_used_and_no_weight(tiny: LanguageModel) -> None:
    vectors = _vectors(tiny).requires_grad_()
    batch = collate([Encoded((-1, *PLAIN[1:]), 3)], [0])
    with softened(tiny, vectors):
        hidden = tiny.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    (slope,) = torch.autograd.grad(hidden.square().sum(), vectors)
    assert slope[0].abs().max() > 0
    assert not slope[1].any()
    assert all(weight.grad is None for weight in tiny.network.parameters())
