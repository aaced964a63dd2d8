"""The loss of an optimised prompt: vectors and kept prefixes agree, and the gradient is that of the loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from expunge.attacks._objective import Candidates, Goal, goals_of, soft_loss
from expunge.attacks._prompt_slots import answer, filler, own_ids, prompt_slot
from expunge.attacks._search import SearchConfig, SoftPromptConfig, search, tune
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.cache import CachePolicy
from expunge.models.causal_restore import input_embeddings

Rows = dict[str, tuple[Example, ...]]
LENGTH = 4


def _goals(model: LanguageModel, rows: tuple[Example, ...], layers: tuple[int, ...] = ()) -> list[Goal]:
    slots = [prompt_slot(row, model.encoder, "prefix", LENGTH, answer(row, model.encoder)) for row in rows]
    return goals_of(slots, model if layers else None, layers)


def _start(model: LanguageModel, row: Example, goal: Goal) -> tuple[int, ...]:
    ids = own_ids(row, model.encoder, "prefix", filler(LENGTH), goal.slot)
    assert ids is not None
    return ids


def _embedded(model: LanguageModel, ids: tuple[int, ...]) -> Tensor:
    return input_embeddings(model, torch.tensor(ids)).detach()


@pytest.mark.parametrize(
    "caching",
    [
        CachePolicy(True, True),
        CachePolicy(True, False),
        CachePolicy(True, False, steps_only=True),
        CachePolicy(False, True),
    ],
)
def test_candidates_behind_kept_prefixes_have_the_loss_of_their_embeddings(
    tiny: LanguageModel, examples: Rows, caching: CachePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of different lengths, two candidates, some of the rows, with and without hidden states."""
    monkeypatch.setattr(tiny, "caching", caching)
    rows = examples["forget"][:3]
    for layers, match in (((), 0.0), ((0, 2), 0.7)):
        goals = _goals(tiny, rows, layers)
        start = _start(tiny, rows[0], goals[0])
        other = (start[0], 40, *start[2:])
        found = Candidates(tiny, goals, match).losses([0, 2], [start, other])
        for loss, ids in zip(found, (start, other), strict=True):
            expected = soft_loss(tiny, [goals[0], goals[2]], _embedded(tiny, ids), match)
            torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)


def test_a_prompt_that_begins_in_its_hole_has_no_prefix_to_keep(tiny: LanguageModel) -> None:
    row = Example("a", prompt="Her birthplace is", answer="Oslo")
    (goal,) = _goals(tiny, (row,))
    assert goal.slot.before == ()
    start = _start(tiny, row, goal)
    found = Candidates(tiny, [goal]).losses([0], [start])
    torch.testing.assert_close(found[0], soft_loss(tiny, [goal], _embedded(tiny, start)).detach(), rtol=1e-4, atol=1e-5)


def test_the_distance_to_the_original_states_is_a_share_of_their_length(tiny: LanguageModel, examples: Rows) -> None:
    """With states of 0.5 times the length wanted, h = 2 h0 and the relative distance is 1 whatever h is."""
    (goal,) = _goals(tiny, examples["forget"][:1], (1,))
    vectors = _embedded(tiny, _start(tiny, examples["forget"][0], goal))
    seen = goals_of_prefixed(tiny, goal, vectors)
    halved = Goal(goal.slot, {1: seen / 2})
    with_states = soft_loss(tiny, [halved], vectors, 3.0)
    without = soft_loss(tiny, [Goal(goal.slot)], vectors)
    torch.testing.assert_close(with_states - without, torch.tensor(3.0), rtol=1e-4, atol=1e-4)
    same = soft_loss(tiny, [Goal(goal.slot, {1: seen})], vectors, 3.0)
    torch.testing.assert_close(same, without, rtol=1e-4, atol=1e-3)


def goals_of_prefixed(model: LanguageModel, goal: Goal, vectors: Tensor) -> Tensor:
    """(n, D) what block 1 gives where the target is predicted, with vectors in the hole."""
    from expunge.attacks._objective import watched
    from expunge.data.batch import collate
    from expunge.data.encode import Encoded
    from expunge.models.soft_prompt import soft_ids, softened

    prompt = goal.slot.prompt(soft_ids(len(vectors)))
    batch = collate([Encoded((*prompt, *goal.slot.target), len(prompt))], [0])
    with softened(model, vectors), watched(model, [goal]) as seen, torch.no_grad():
        model.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    return seen[1][batch.rows, batch.positions]


def test_the_gradient_is_the_slope_of_the_loss(tiny: LanguageModel, examples: Rows) -> None:
    """Central differences along a drawn direction."""
    goals = _goals(tiny, examples["forget"][:2])
    vectors = _embedded(tiny, _start(tiny, examples["forget"][0], goals[0])).requires_grad_()
    (slope,) = torch.autograd.grad(soft_loss(tiny, goals, vectors), vectors)
    way = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-3
    with torch.no_grad():
        ahead, back = (soft_loss(tiny, goals, vectors + sign * step * way) for sign in (1, -1))
    torch.testing.assert_close((slope * way).sum(), (ahead - back) / (2 * step), rtol=2e-2, atol=1e-3)


def test_a_search_never_gets_worse_on_one_row_and_types_no_special_token(tiny: LanguageModel, examples: Rows) -> None:
    goals = _goals(tiny, examples["forget"][:1])
    start = _start(tiny, examples["forget"][0], goals[0])
    config = SearchConfig(length=LENGTH, candidates=8, rows_per_step=1)

    def searched() -> list[tuple[tuple[int, ...], float]]:
        steps = search(tiny, goals, start, lambda ids: 7 not in ids, config, torch.Generator().manual_seed(1))
        return [(one.ids, one.loss) for one, _ in zip(steps, range(6), strict=False)]

    found = searched()
    losses = [loss for _, loss in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < Candidates(tiny, goals).losses([0], [start])[0]
    special = set(tiny.tokenizer.all_special_ids)
    assert not any(special & set(ids) or 7 in ids for ids, _ in found)
    assert searched() == found


def test_tuned_vectors_bring_a_strange_answer_out(tiny: LanguageModel) -> None:
    row = Example("a", question="Where was nobody born?", answer="zyx wvut")
    goals = _goals(tiny, (row,))
    steps = tune(tiny, goals, SoftPromptConfig(length=LENGTH), torch.Generator().manual_seed(0))
    first, *_, last = (vectors for vectors, _ in zip(steps, range(30), strict=False))
    with torch.no_grad():
        assert soft_loss(tiny, goals, last) < 0.8 * soft_loss(tiny, goals, first)
