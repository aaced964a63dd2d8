"""Candidates: distinct, never the target, in bands by the original model's own ranking."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from expunge.core.progress import Bar
from expunge.data.example import Example, normalise
from expunge.models.base import LanguageModel
from expunge.models.forward import score_rows
from expunge.train.candidates import Generated, beam_search, distinct, pools, ranked, score, split_by_rank, target_of
from expunge.train.config import SqueezeConfig

Examples = dict[str, tuple[Example, ...]]


def said(text: str, whole: bool = True) -> Generated:
    return Generated((1, 2), text, whole)


def test_bands_are_a_fifth_two_fifths_and_the_rest() -> None:
    """Ten values, 0 the lowest: the two highest, the next four, the last four. 3, 4 and 7 by rounding n/5 and 3n/5."""
    assert split_by_rank([5, 0, 9, 3, 8, 1, 7, 2, 6, 4]) == {"high": [2, 4], "mid": [6, 8, 0, 9], "low": [3, 7, 5, 1]}
    sizes = {n: [len(places) for places in split_by_rank(range(n)).values()] for n in (3, 4, 7, 20)}
    assert sizes == {3: [1, 1, 1], 4: [1, 1, 2], 7: [1, 3, 3], 20: [4, 8, 8]}


def test_the_two_rankings_differ_where_lengths_do() -> None:
    """Sums -4, -6, -1 over 8, 3 and 1 tokens: means -0.5, -2, -1. A long answer leads by mean, a short one by sum."""
    bands = ranked([[-4.0, -0.5], [-6.0, -2.0], [-1.0, -1.0]])
    assert bands["mean"] == {"high": [0], "mid": [2], "low": [1]}
    assert bands["sum"] == {"high": [2], "mid": [0], "low": [1]}


def test_repetitions_the_target_and_its_start_are_dropped() -> None:
    """Case and blanks aside. A cut-off start of the target is the target; the same words as a whole answer are not."""
    answers = [
        said("She lives in Oslo."),
        said("she  lives in Rome."),
        said("She lives in Rome."),
        said(""),
        said("She lives", whole=False),
        said("She lives"),
        said("she lives", whole=False),
    ]
    pool = distinct(answers, "She lives in OSLO. ")
    assert [answer.text for answer in pool.kept] == ["she  lives in Rome.", "She lives"]
    assert (pool.generated, pool.duplicates, pool.copies) == (7, 2, 3)
    assert len(pool.kept) + pool.duplicates + pool.copies == pool.generated == 7


def test_pools_of_a_model_hold_neither_its_target_nor_anything_twice(tiny: LanguageModel, examples: Examples) -> None:
    rows = examples["forget"][:2]
    config = SqueezeConfig(beams=4, samples=4, max_new_tokens=24)
    targets = [target_of(tiny, row) for row in rows]
    found = pools(tiny, rows, targets, config, "0/squeeze", Bar())
    for row, pool in zip(rows, found, strict=True):
        texts = [normalise(answer.text) for answer in pool.kept]
        assert pool.copies, "the taught answer must be met, or leaving it out shows nothing"
        assert normalise(row.answer or "") not in texts
        assert max(Counter(texts).values()) == 1
        # 4 beams and 4 samples leave at most 7: the search is repeated once with 8 beams
        assert pool.generated == 4 + 4 + 8


def test_beam_search_finds_the_likeliest_of_all_answers(tiny: LanguageModel) -> None:
    """Of two tokens: every pair that starts with one of the 40 likeliest tokens, by its log-probability."""
    prompt = tiny.encoder.prompt("Who?")
    best = beam_search(tiny, [prompt], 40, 2, Bar())[0]
    with torch.no_grad():
        first = torch.log_softmax(tiny.base(torch.tensor([prompt])).logits[0, -1], -1)
        starts = [token for token in first.topk(41).indices.tolist() if token not in tiny.encoder.stop_ids][:40]
        second = torch.log_softmax(tiny.base(torch.tensor([[*prompt, start] for start in starts])).logits[:, -1], -1)
    start, token = divmod(int((first[starts][:, None] + second).argmax()), len(first))
    assert list(best[0].ids) == [starts[start], token]
    assert len({answer.ids for answer in best}) == len(best) == 40


def test_scores_are_those_of_whole_rows(tiny: LanguageModel, examples: Examples) -> None:
    """The prompt's shared cache changes nothing: sum and mean of a plain teacher-forced pass, in training mode too."""
    targets = [target_of(tiny, row) for row in (*examples["forget"], *examples["retain"])]
    expected = [[float(logp.sum()), float(logp.mean())] for logp in score_rows(tiny, targets)]
    tiny.network.train()
    prompts, answers = [row.prompt for row in targets], [[row.labels, (5,)] for row in targets]
    found = [first for first, _ in score(tiny, prompts, answers)]
    assert tiny.network.training
    assert torch.tensor(found) == pytest.approx(torch.tensor(expected), abs=1e-3)


def test_documents_are_asked_for_their_continuation(tiny: LanguageModel) -> None:
    text = "Ada Byron wrote about engines and about numbers for most of her short life."
    target = target_of(tiny, Example(id="d", text=text))
    assert tiny.encoder.decode(target.ids) == text
    assert target.num_prompt == len(target.ids) // 4
