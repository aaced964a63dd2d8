"""Many prompts continued, or their continuations scored: length-sorted, each prompt encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from expunge.core.progress import Bar
from expunge.data.batch import by_length
from expunge.data.reasoning import Watch
from expunge.models.base import LanguageModel
from expunge.models.batches import in_batches
from expunge.models.generate import Scored, decode, score_answers
from expunge.models.prefix import encode_prompts


def continued(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    seeds: Sequence[Sequence[str]] | None = None,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    max_reasoning_tokens: int | None = None,
    bar: Bar | None = None,
) -> list[list[list[int]]]:
    """Continue prompts, in evaluation mode; the model's mode is restored.

    Args:
        model: any model.
        prompts: P prompts.
        max_new_tokens: one limit, or one for each prompt.
        seeds: for each prompt one string per draw; a draw depends only on its seed, its prompt and the model.
            Default: each prompt is continued greedily, once.
        temperature: of the sampling.
        top_k: sample from the k likeliest tokens only; 0: from all.
        top_p: sample from the likeliest tokens that together reach this probability; 1: from all.
        max_reasoning_tokens: longest reasoning before an answer, which then does not count against the limit. Default:
            reasoning counts against the limit.
        bar: advanced once for each prompt.

    Returns:
        For each prompt its continuations in the order of the seeds. A stop token is kept: without one, a continuation
        was cut at its limit.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    draws = [1 if seeds is None else len(seeds[place]) for place in range(len(prompts))]
    costs = [count * (len(prompt) + limit) for count, prompt, limit in zip(draws, prompts, limits, strict=True)]
    found: list[list[list[int]]] = [[] for _ in prompts]

    def work(places: Sequence[int], _: int) -> None:
        prefix = encode_prompts(model, [prompts[place] for place in places])
        rows = [row for row, place in enumerate(places) for _ in range(draws[place])]
        most = [limits[places[row]] for row in rows]
        watches = None
        if max_reasoning_tokens is not None:
            watches = [_watch(model, prompts[places[row]], limits[places[row]], max_reasoning_tokens) for row in rows]
            most = [watch.room for watch in watches]
        outputs = decode(
            prefix.select(torch.tensor(rows, device=model.device)),
            most,
            model.encoder.stop_ids,
            None if seeds is None else [seed for place in places for seed in seeds[place]],
            temperature,
            top_k=top_k,
            top_p=top_p,
            keep_stop=True,
            watches=watches,
        )
        for row, ids in zip(rows, outputs, strict=True):
            found[places[row]].append(ids)
        if bar is not None:
            bar.advance(len(places))

    with model.evaluating(), model.reading():
        in_batches(model.budget, model.device, "generate", costs, work)
    return found


def _watch(model: LanguageModel, prompt: Sequence[int], answer: int, reasoning: int) -> Watch:
    room = max(0, model.encoder.max_length - len(prompt) - answer)
    return model.encoder.reasoning.watch(prompt, answer, min(reasoning, room))


def scored(
    model: LanguageModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[Sequence[int]]]
) -> list[list[Scored]]:
    """Teacher-forced log-probabilities of every answer after its prompt.

    Args:
        model: any model; is put in evaluation mode meanwhile.
        prompts: P prompts.
        answers: token ids of each prompt's answers, none empty.
    """
    found: list[dict[int, Scored]] = [{} for _ in prompts]

    def work(places: Sequence[int], size: int) -> None:
        prefix = encode_prompts(model, [prompts[place] for place in places])
        flat = [(row, place, number) for row, place in enumerate(places) for number in range(len(answers[place]))]
        lengths = [prefix.mask.shape[1] + len(answers[place][number]) for _, place, number in flat]
        for group in by_length(lengths, size):
            part = [flat[index] for index in group]
            ids = [answers[place][number] for _, place, number in part]
            for (_, place, number), one in zip(
                part, score_answers(prefix, [row for row, _, _ in part], ids), strict=True
            ):
                found[place][number] = one

    with model.evaluating(), model.reading():
        in_batches(model.budget, model.device, "generate", [len(prompt) for prompt in prompts], work)
    return [[some[number] for number in range(len(some))] for some in found]
