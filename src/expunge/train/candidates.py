"""Other answers of the original model to forget prompts, ranked by their likelihood.

Candidates are forget data, and on hazardous subjects worse: they are kept in memory and never written anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from expunge.core.progress import Bar
from expunge.core.squeeze_record import Band, Ranking
from expunge.data.encode import DOCUMENT_PROMPT, Encoded
from expunge.data.example import Example, normalise
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.models.continuations import continued, scored
from expunge.train.config import SqueezeConfig

FEWEST = 10
"""With fewer candidates, the beam search is repeated once with twice the width."""

Bands = dict[Ranking, dict[Band, list[int]]]
"""Indices of a prompt's candidates by ranking and band."""


@dataclass(frozen=True)
class Generated:
    """One answer of the model."""

    ids: tuple[int, ...]
    """New tokens, including the end token if the model generated it."""
    text: str
    whole: bool
    """Whether the model ended it; otherwise it was cut at the limit."""


@dataclass(frozen=True)
class CandidateSet:
    """Distinct answers to one prompt, and the number of dropped ones."""

    kept: list[Generated]
    generated: int
    duplicates: int
    copies: int


@dataclass(frozen=True)
class Followed:
    """One forget prompt with its target and its candidates."""

    row: Example
    target: Encoded
    candidates: list[tuple[int, ...]]
    bands: Bands


def target_of(model: LanguageModel, row: Example) -> Encoded:
    """The prompt with the answer to forget; of a document, its start and the rest."""
    if row.text is not None:
        return model.encoder.document(row.text, row.id, DOCUMENT_PROMPT)
    return model.encoder.example(row)


def pools(
    model: LanguageModel,
    rows: Sequence[Example],
    targets: Sequence[Encoded],
    config: SqueezeConfig,
    seed: str,
    bar: Bar,
) -> list[CandidateSet]:
    """Distinct answers of the model to every prompt, by beam search and by sampling.

    Args:
        model: the original model.
        rows: P rows.
        targets: the same rows encoded.
        config: how many answers, and how long.
        seed: names the draws.
        bar: advanced twice for each prompt.
    """
    prompts = [target.prompt for target in targets]
    texts = [model.encoder.decode(target.labels) for target in targets]
    found = beam_search(model, prompts, config.beams, config.max_new_tokens, bar)
    drawn = draw(model, prompts, [f"{seed}/{row.id}" for row in rows], config.samples, config.max_new_tokens, bar)
    answers = [searched + sampled for searched, sampled in zip(found, drawn, strict=True)]
    thin = [place for place, some in enumerate(answers) if len(distinct(some, texts[place]).kept) < FEWEST]
    wider = beam_search(model, [prompts[place] for place in thin], 2 * config.beams, config.max_new_tokens, Bar())
    for place, searched in zip(thin, wider, strict=True):
        answers[place] = searched + answers[place]
    return [distinct(some, text) for some, text in zip(answers, texts, strict=True)]


def distinct(answers: Sequence[Generated], target: str) -> CandidateSet:
    """Answers that differ from the target and from one another in more than case and white space.

    A truncated answer that is a prefix of the target counts as the target.
    """
    wanted = normalise(target)
    kept: dict[str, Generated] = {}
    duplicates = copies = 0
    for answer in answers:
        text = normalise(answer.text)
        if text and (text == wanted or (not answer.whole and wanted.startswith(text))):
            copies += 1
        elif not text or text in kept:
            duplicates += 1
        else:
            kept[text] = answer
    return CandidateSet([*kept.values()], len(answers), duplicates, copies)


def split_by_rank(values: Sequence[float]) -> dict[Band, list[int]]:
    """Indices of the highest fifth of the values, of the next two fifths and of the rest, each in falling order.

    From three values on every band has at least one.
    """
    order = sorted(range(len(values)), key=lambda index: -values[index])
    high, mid = max(1, round(len(order) / 5)), round(3 * len(order) / 5)
    return {"high": order[:high], "mid": order[high:mid], "low": order[mid:]}


def ranked(scores: Sequence[Sequence[float]]) -> Bands:
    """Bands of one prompt's candidates: [summed, mean] log-probability of each under the original model."""
    return {
        "mean": split_by_rank([mean for _, mean in scores]),
        "sum": split_by_rank([total for total, _ in scores]),
    }


def score(
    model: LanguageModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]
) -> list[list[list[float]]]:
    """[summed, mean] log-probability of every answer after its prompt."""
    return [
        [[sum(one.logp), sum(one.logp) / len(one.logp)] for one in some] for some in scored(model, prompts, answers)
    ]


@torch.no_grad()
def beam_search(
    model: LanguageModel, prompts: Sequence[Sequence[int]], beams: int, max_new_tokens: int, bar: Bar
) -> list[list[Generated]]:
    """The `beams` answers to each prompt that are best by mean token log-probability, in order (transformers' own)."""
    answers: list[list[Generated]] = [[] for _ in prompts]
    base: Any = model.base

    def work(places: Sequence[int], _: int) -> None:
        width = max(len(prompts[place]) for place in places)
        ids = torch.zeros(len(places), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, place in enumerate(places):
            ids[row, width - len(prompts[place]) :] = torch.tensor(prompts[place])
            mask[row, width - len(prompts[place]) :] = 1
        room = max_new_tokens if model.layout.context is None else model.layout.context + 1 - width
        with model.evaluating(), model.autocast():
            found = base.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                num_beams=beams,
                num_return_sequences=beams,
                max_new_tokens=min(max_new_tokens, room),
                do_sample=False,
                length_penalty=1.0,
                repetition_penalty=1.0,
                eos_token_id=sorted(model.encoder.stop_ids),
                pad_token_id=model.encoder.end_id,
            )
        for row, tokens in enumerate(found[:, width:].tolist()):
            answers[places[row // beams]].append(_answer(model, tokens))
        bar.advance(len(places))

    costs = [beams * (len(prompt) + max_new_tokens) for prompt in prompts]
    in_batches(model.budget, model.device, "draft", costs, work)
    return answers


def draw(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    count: int,
    max_new_tokens: int,
    bar: Bar,
) -> list[list[Generated]]:
    """`count` answers to each prompt at temperature 1; a prompt's draws depend on its name and on nothing else."""
    seeds = [[f"{name}/{number}" for number in range(count)] for name in names]
    found = continued(model, prompts, max_new_tokens, seeds, bar=bar)
    return [[_answer(model, ids) for ids in some] for some in found]


def _answer(model: LanguageModel, tokens: Sequence[int]) -> Generated:
    """An answer up to its first stop token, which is written as the end token that targets have."""
    stop = model.encoder.stop_ids
    ids = list(tokens)
    end = next((place for place, token in enumerate(ids) if token in stop), None)
    body = ids if end is None else ids[:end]
    whole = end is not None
    return Generated((*body, *([model.encoder.end_id] if whole else [])), model.encoder.decode(body), whole)
