"""Encoded prompts, scored answers, greedy and sampled continuations: the plain computation, only faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from random_models import random_network
from scipy.stats import chisquare
from torch import Tensor

from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.generate import decode, next_logp, score_answers
from expunge.models.prefix import encode_prompts

NUM_SAMPLES = 2000


@pytest.fixture
def prompts(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> list[tuple[int, ...]]:
    rows = [*examples["forget"][:3], *examples["retain"][:3]]
    return [tiny.encoder.prompt(row.question or "") for row in rows]


@torch.no_grad()
def plain(model: LanguageModel, prompt: Sequence[int], answer: Sequence[int]) -> tuple[list[float], list[bool]]:
    """Log-probability and arg-max hit of each answer token, from one forward of the whole row."""
    logits = model.base(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    labels = torch.tensor(answer)
    logp = torch.log_softmax(logits, -1).gather(1, labels[:, None])[:, 0]
    return logp.tolist(), (logits.argmax(-1) == labels).tolist()


def test_scored_answers_are_those_of_plain_forwards(tiny: LanguageModel, prompts: list[tuple[int, ...]]) -> None:
    """Several answers to one prompt, in any order, of one token and of many, right and wrong."""
    known = [tiny.encoder.answer("Who?", "Somebody else entirely.").labels, (5,), (300, 301, 302)]
    asked = [(2, known[0]), (0, known[1]), (2, known[2]), (1, known[2]), (5, known[0])]
    scored = score_answers(encode_prompts(tiny, prompts), [row for row, _ in asked], [ids for _, ids in asked])
    for (row, ids), found in zip(asked, scored, strict=True):
        logp, hit = plain(tiny, prompts[row], ids)
        assert list(found.logp) == pytest.approx(logp, abs=1e-4)
        assert list(found.hit) == hit


def test_single_token_answers_alone_need_no_second_forward(tiny: LanguageModel, prompts: list[tuple[int, ...]]) -> None:
    """With every answer one token long nothing is left to feed: the prompt's own logits hold the score."""
    scored = score_answers(encode_prompts(tiny, prompts[:2]), [0, 1], [(5,), (300,)])
    for prompt, label, found in zip(prompts, (5, 300), scored, strict=False):
        assert list(found.logp) == pytest.approx(plain(tiny, prompt, [label])[0], abs=1e-4)


def test_next_tokens_are_read_off_the_prompts_own_logits(tiny: LanguageModel, prompts: list[tuple[int, ...]]) -> None:
    """Several tokens after one prompt, and none after another."""
    asked = [(2, 5), (0, 300), (2, 300), (2, 7)]
    found = next_logp(encode_prompts(tiny, prompts), [row for row, _ in asked], [token for _, token in asked])
    for (row, token), logp in zip(asked, found, strict=True):
        assert logp == pytest.approx(plain(tiny, prompts[row], [token])[0][0], abs=1e-4)
    assert next_logp(encode_prompts(tiny, prompts), [], []) == []


def test_greedy_tokens_are_those_of_transformers_whatever_the_batch(
    tiny: LanguageModel, prompts: list[tuple[int, ...]]
) -> None:
    """Rows end after different lengths and leave the batch; the rest go on as if they had been alone."""
    stop = tiny.encoder.stop_ids
    together = decode(encode_prompts(tiny, prompts), 48, stop)
    backwards = decode(encode_prompts(tiny, prompts[::-1]), 48, stop)[::-1]
    assert len({len(tokens) for tokens in together}) > 1
    for prompt, first, second in zip(prompts, together, backwards, strict=True):
        generated = tiny.base.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=48)
        expected = generated[0, len(prompt) :].tolist()
        assert first == second == [token for token in expected if token not in stop]


def test_decoding_a_selection_leaves_the_prefix_whole(tiny: LanguageModel, prompts: list[tuple[int, ...]]) -> None:
    """One encoding serves samples, greedy answers and scores, in any order and repeated."""
    prefix = encode_prompts(tiny, prompts)
    before = score_answers(prefix, [0, 4], [(5, 6, 7), (8, 9)])
    decode(prefix.select(torch.tensor([1, 1, 0])), 5, frozenset())
    assert score_answers(prefix, [0, 4], [(5, 6, 7), (8, 9)]) == before


def test_at_most_so_many_tokens(tiny: LanguageModel, prompts: list[tuple[int, ...]]) -> None:
    for limit in (0, 1, 3):
        assert [len(tokens) for tokens in decode(encode_prompts(tiny, prompts), limit, frozenset())] == [limit] * 6


def test_a_sample_depends_on_its_seed_string_alone(tiny: LanguageModel, prompts: list[tuple[int, ...]]) -> None:
    """Not on the batch, its order, or torch's global generator; and another seed gives another sample."""

    def sample(chosen: Sequence[int], seeds: Sequence[str]) -> list[list[int]]:
        torch.manual_seed(len(chosen))
        prefix = encode_prompts(tiny, [prompts[index] for index in chosen])
        return decode(prefix, 12, tiny.encoder.stop_ids, seeds, temperature=3.0)

    together = sample(range(6), [f"row {index}" for index in range(6)])
    assert sample([4, 1], ["row 4", "row 1"]) == [together[4], together[1]]
    assert sample([3], ["row 3"]) == [together[3]]
    assert sample([3], ["another"]) != [together[3]]


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_samples_follow_the_models_distribution(tiny: LanguageModel, temperature: float) -> None:
    """First tokens against softmax(logits / temperature), by chi-square; a temperature off by half is found out."""
    prefix = encode_prompts(tiny, [tiny.encoder.prompt("Tell me something.")])
    logits = prefix.logits[0].double()
    drawn = sample_first(prefix, temperature)
    assert chi_square(drawn, torch.softmax(logits / temperature, -1)) > 0.01
    assert chi_square(drawn, torch.softmax(logits / (1.5 * temperature), -1)) < 1e-6


def test_nothing_cuts_the_tail_of_the_distribution(wrap: Callable[[Any], LanguageModel]) -> None:
    """A nearly flat model over 128 tokens: 2000 samples meet all of them, where a hidden top-k would leave 50."""
    network = random_network("Llama")
    for weight in network.parameters():
        weight.data *= 0.2
    drawn = sample_first(encode_prompts(wrap(network), [(5, 9, 17)]), 1.0)
    assert len(drawn) == 128


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (0, 0.6), (30, 0.6)])
def test_cuts_leave_the_likeliest_tokens_renormalised(
    wrap: Callable[[Any], LanguageModel], top_k: int, top_p: float
) -> None:
    """top_p keeps tokens up to the one that reaches its mass, included; of what top_k leaves, if both are set."""
    network = random_network("Llama")
    for weight in network.parameters():
        weight.data *= 0.8
    prefix = encode_prompts(wrap(network), [(5, 9, 17)])
    probabilities, tokens = torch.softmax(prefix.logits[0].double() / 1.5, -1).sort(descending=True)
    if top_k:
        probabilities[top_k:] = 0
        probabilities /= probabilities.sum()
    if top_p < 1:
        count = next(count for count in range(1, 129) if probabilities[:count].sum() >= top_p)
        probabilities[count:] = 0
    cut = torch.zeros(128, dtype=torch.float64).index_add(0, tokens, probabilities / probabilities.sum())
    drawn = sample_first(prefix, 1.5, top_k=top_k, top_p=top_p)
    kept = cut.nonzero()[:, 0].tolist()
    assert set(drawn) <= set(kept)
    assert 1 < len(kept) < 128
    expected = [NUM_SAMPLES * cut[token].item() for token in kept]
    assert chisquare([drawn[token] for token in kept], expected).pvalue > 0.01


def test_rows_have_limits_of_their_own_and_may_keep_their_end(
    tiny: LanguageModel, prompts: list[tuple[int, ...]]
) -> None:
    stop = tiny.encoder.stop_ids
    limits = [1, 48, 3, 48, 2, 48]
    whole = decode(encode_prompts(tiny, prompts), 48, stop)
    found = decode(encode_prompts(tiny, prompts), limits, stop, keep_stop=True)
    for tokens, limit, full in zip(found, limits, whole, strict=True):
        bare = [token for token in tokens if token not in stop]
        assert bare == full[:limit]
        assert len(tokens) - len(bare) == (len(full) < limit)
    seeds = [f"row {row}" for row in range(6)]
    drawn = decode(encode_prompts(tiny, prompts), limits, stop, seeds, 3.0)
    for row in (1, 2):
        assert decode(encode_prompts(tiny, prompts[row : row + 1]), limits[row], stop, seeds[row : row + 1], 3.0) == [
            drawn[row]
        ]


def sample_first(prefix: Any, temperature: float, **cuts: Any) -> Counter[int]:
    branch = prefix.select(torch.zeros(NUM_SAMPLES, dtype=torch.long))
    seeds = [f"sample {number}" for number in range(NUM_SAMPLES)]
    return Counter(tokens[0] for tokens in decode(branch, 1, frozenset(), seeds, temperature, **cuts))


def chi_square(drawn: Counter[int], probabilities: Tensor) -> float:
    """p-value; tokens expected fewer than five times are pooled."""
    expected = NUM_SAMPLES * probabilities
    common = [token for token in range(len(expected)) if expected[token] >= 5]
    assert len(common) > 1, "a distribution of one token shows nothing"
    found = [drawn[token] for token in common]
    wanted = [expected[token].item() for token in common]
    return float(chisquare([*found, NUM_SAMPLES - sum(found)], [*wanted, NUM_SAMPLES - sum(wanted)]).pvalue)
