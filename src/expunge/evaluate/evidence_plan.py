"""Plans and runs the prompts of a batch of rows; each is encoded once and serves every answer after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from expunge.data.batch import by_length
from expunge.data.encode import Encoder
from expunge.data.example import Example, paraphrased, scored
from expunge.data.reasoning import Parts, Watch
from expunge.evaluate.base import Need
from expunge.evaluate.config import EvaluateConfig, Role
from expunge.models.base import LanguageModel
from expunge.models.generate import ReadAnswers, Scored, decode, next_logp, read_answers
from expunge.models.prefix import Prefix, encode_prompts

_ENOUGH = 1024
"""Answer tokens that keep a processor busy: beyond them, padding costs more than another forward pass."""


@dataclass(frozen=True)
class Ask:
    """A set of rows and the evidence to collect about each."""

    rows: Sequence[Example]
    role: Role
    needs: frozenset[Need]
    config: EvaluateConfig

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(map(scored, self.rows)))

    @property
    def probed(self) -> bool:
        """Whether its questions are also sampled and paraphrased."""
        return self.role in self.config.probe_splits


class Answer(NamedTuple):
    """One answer that is scored after a prompt."""

    need: Need
    ids: tuple[int, ...]


@dataclass
class Request:
    """One prompt with everything that is scored or generated after it."""

    row: int
    """Index of its row in the unit."""
    prompt: tuple[int, ...]
    config: EvaluateConfig
    answers: list[Answer] = field(default_factory=list)
    moments: bool = False
    greedy: Need | None = None
    reasons: bool = False
    """Whether reasoning, with its own limit, may precede the answer."""
    seeds: list[str] = field(default_factory=list)
    """One string for each sample to draw."""


def requests(row: int, example: Example, ask: Ask, seed: int, encoder: Encoder) -> Iterator[Request]:
    """The prompts of one row that have anything to score or generate."""
    needs, config = ask.needs, ask.config
    main = Request(row, encoder.asked(example, config.document_prompt), config, moments="moments" in needs)
    main.reasons = example.text is None
    main.greedy = "greedy" if "greedy" in needs else None
    if "samples" in needs and ask.probed:
        main.seeds = [f"{seed}/{example.id}/{number}" for number in range(config.samples)]
    scored = {main.prompt: main}
    for prompt, answer in _answers(example, config, encoder):
        if answer.need in needs:
            scored.setdefault(prompt, Request(row, prompt, config, moments=main.moments)).answers.append(answer)
    yield from (one for one in scored.values() if one.answers or one.greedy or one.seeds)
    if "paraphrased_greedy" in needs and ask.probed and example.paraphrased_question is not None:
        yield Request(row, encoder.asked(paraphrased(example)), config, greedy="paraphrased_greedy", reasons=True)
    if "choices" in needs and example.options:
        options = encoder.choices(example)
        choices = [Answer("choices", option.labels) for option in options]
        yield Request(row, options[0].prompt, config, answers=choices)


def _answers(example: Example, config: EvaluateConfig, encoder: Encoder) -> Iterator[tuple[tuple[int, ...], Answer]]:
    """The prompt that each stored answer follows, and the answer."""
    if example.text is not None:
        document = encoder.document(example.text, example.id, config.document_prompt)
        yield document.prompt, Answer("answer", document.labels)
        return
    texts: list[tuple[Need, str | None]] = [
        ("answer", example.answer),
        ("paraphrased_answer", example.paraphrased_answer),
        *(("perturbed_answer", wrong) for wrong in example.perturbed_answer),
    ]
    for need, text in texts:
        if text is not None:
            yield encoder.answer_prompt(example, text), Answer(need, encoder.answered(example, text).labels)


def ask_batch(model: LanguageModel, batch: Sequence[Request], token_budget: int) -> list[dict[str, Any]]:
    """Fields of `Item` that each request fills.

    Args:
        model: any model, in evaluation mode.
        batch: requests with prompts of similar length.
        token_budget: padded tokens in one forward pass.
    """
    prefix = encode_prompts(model, [request.prompt for request in batch])
    found: list[dict[str, Any]] = [{} for _ in batch]
    _score(prefix, batch, token_budget, found)
    _sample(prefix, batch, token_budget, found)
    undrafted = [row for row, request in enumerate(batch) if request.greedy and request.greedy not in found[row]]
    if undrafted:
        branch = prefix.select(torch.tensor(undrafted, device=model.device))
        _say(branch, undrafted, [()] * len(undrafted), batch, found)
    return found


def _score(prefix: Prefix, batch: Sequence[Request], token_budget: int, found: list[dict[str, Any]]) -> None:
    """Score every answer in groups of similar length; a greedy answer goes on from where it leaves the stored one."""
    flat = [(row, answer) for row, request in enumerate(batch) for answer in request.answers]
    scored: list[Scored | None] = [None] * len(flat)
    width = prefix.mask.shape[1]
    letters = [place for place, (_, answer) in enumerate(flat) if answer.need == "choices" and len(answer.ids) == 1]
    logps = next_logp(prefix, [flat[place][0] for place in letters], [flat[place][1].ids[0] for place in letters])
    for place, logp in zip(letters, logps, strict=True):
        scored[place] = Scored((logp,), ())
    others = [place for place, known in enumerate(scored) if known is None]
    for places in _groups([len(flat[place][1].ids) for place in others], width, token_budget):
        group = [others[place] for place in places]
        part = [flat[index] for index in group]
        read = read_answers(
            prefix,
            [row for row, _ in part],
            [answer.ids for _, answer in part],
            moments=[batch[row].moments and answer.need == "answer" for row, answer in part],
        )
        for index, one in zip(group, read.scored, strict=True):
            scored[index] = one
        _draft(read, part, batch, found)
    for (row, answer), score in zip(flat, scored, strict=True):
        assert score is not None
        if answer.need == "perturbed_answer":
            found[row][answer.need] = (*found[row].get(answer.need, ()), score)
        elif answer.need == "choices":
            found[row]["choice_logp"] = (*found[row].get("choice_logp", ()), sum(score.logp))
        else:
            found[row][answer.need] = score


def _groups(lengths: Sequence[int], width: int, token_budget: int) -> Iterator[list[int]]:
    """Places of answers that are read together: one-token answers need no forward pass, so they never wait for one."""
    single = [place for place, length in enumerate(lengths) if length == 1]
    longer = [place for place, length in enumerate(lengths) if length > 1]
    if single:
        yield single
    tokens = [lengths[place] for place in longer]
    for group in by_length(tokens, 2 * token_budget, context=width, enough=_ENOUGH):
        yield [longer[index] for index in group]


def _draft(
    read: ReadAnswers, part: Sequence[tuple[int, Answer]], batch: Sequence[Request], found: list[dict[str, Any]]
) -> None:
    """Greedy answers that begin as the stored answer does need no decoding up to where they leave it."""
    drafted = [
        place for place, (row, answer) in enumerate(part) if answer.need == "answer" and batch[row].greedy is not None
    ]
    if not drafted or not read.behind.model.caching.holes:
        return
    rows = [part[place][0] for place in drafted]
    starts = [part[place][1].ids[: read.num_agreed[place]] for place in drafted]
    _say(read.turned(drafted), rows, starts, batch, found)


def _say(
    branch: Prefix,
    rows: Sequence[int],
    starts: Sequence[tuple[int, ...]],
    batch: Sequence[Request],
    found: list[dict[str, Any]],
) -> None:
    """Decode greedy answers from their known beginnings, and store their text."""
    encoder = branch.model.encoder
    watches = [_watch(encoder, batch[row], start) for row, start in zip(rows, starts, strict=True)]
    going = [place for place, watch in enumerate(watches) if watch.room]
    if going:
        if len(going) < len(starts):
            branch = branch.select(torch.tensor(going, device=branch.mask.device))
        left, watching = [watches[place].room for place in going], [watches[place] for place in going]
        decode(branch, left, encoder.stop_ids, watches=watching)
    for row, watch in zip(rows, watches, strict=True):
        need = batch[row].greedy
        assert need is not None
        said = _said(encoder, batch[row], watch)
        found[row][need] = said.text
        if need == "greedy":
            found[row] |= {"greedy_ids": said.ids, "greedy_ended": said.ended, "reasoning": said.reasoning}
        else:
            found[row]["paraphrased_reasoning"] = said.reasoning


def _sample(prefix: Prefix, batch: Sequence[Request], token_budget: int, found: list[dict[str, Any]]) -> None:
    encoder = prefix.model.encoder
    sampled = [(row, seed) for row, request in enumerate(batch) for seed in request.seeds]
    width = max(1, token_budget // prefix.mask.shape[1])
    for start in range(0, len(sampled), width):
        part = sampled[start : start + width]
        rows = [row for row, _ in part]
        watches = [_watch(encoder, batch[row]) for row in rows]
        decode(
            prefix.select(torch.tensor(rows, device=prefix.mask.device)),
            [watch.room for watch in watches],
            encoder.stop_ids,
            [seed for _, seed in part],
            batch[0].config.temperature,
            watches=watches,
        )
        for row, watch in zip(rows, watches, strict=True):
            said, so_far = _said(encoder, batch[row], watch), found[row]
            more = {"samples": said.text or "", "samples_ended": said.ended, "sample_reasoning": said.reasoning or ""}
            so_far |= {name: (*so_far.get(name, ()), value) for name, value in more.items()}


def _watch(encoder: Encoder, request: Request, given: Sequence[int] = ()) -> Watch:
    answer = request.config.max_new_tokens
    room = encoder.max_length - len(request.prompt) - answer
    limit = max(0, min(request.config.max_reasoning_tokens, room)) if request.reasons else 0
    return encoder.reasoning.watch(request.prompt, answer, limit, given)


class _Said(NamedTuple):
    """What a model generated after a prompt."""

    text: str | None
    ids: tuple[int, ...] | None
    reasoning: str | None
    ended: bool


def _said(encoder: Encoder, request: Request, watch: Watch) -> _Said:
    parts = watch.parts() if request.reasons else Parts(None, watch.ids)
    if parts.answer is None:
        return _Said(None, None, parts.reasoning, False)
    text, stops = encoder.decode(parts.answer), request.config.stop
    ended = watch.ended or any(stop in text for stop in stops)
    return _Said(cut(text, stops), parts.answer, parts.reasoning, ended)


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of any stop string, stripped."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)].strip() if ends else text
