"""Universal adversarial prompts: one text, or one set of vectors, optimised on some rows and scored on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from expunge.attacks._objective import Goal
from expunge.attacks._prompt_slots import (
    Place,
    PromptSlot,
    answer,
    asked_as_text,
    filler,
    own_ids,
    prompt_slot,
    with_text,
)
from expunge.attacks._search import SearchConfig, SearchStep, SoftPromptConfig, search, tune
from expunge.attacks.base import GIVEN, AttackContext, Attempt, CurvePoint, InternalMeasure, OutOfTime, Value
from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.models.soft_prompt import soft_ids, softened

Step = TypeVar("Step")


@dataclass(frozen=True)
class Optimized:
    """Results of an optimisation at its milestones."""

    curve: list[CurvePoint]
    cut: bool
    """Whether time ran out before the last milestone."""

    @property
    def steps(self) -> int:
        """Steps of the last point."""
        return int(self.curve[-1].at)


def milestones(steps: int, count: int) -> list[int]:
    """Step counts at which a curve is measured: about evenly spaced, ending at `steps`."""
    return sorted({max(1, round(steps * (place + 1) / count)) for place in range(count)})


def check_rows(context: AttackContext, count: int, option: str) -> None:
    """Refuse to train on all attacked rows, since none would remain to be scored.

    Raises:
        UserError: too few rows.
    """
    if count >= len(context.rows):
        raise UserError(f"{option}: training on {count} of {len(context.rows)} attacked rows leaves none to score")


def drawn_rows(context: AttackContext, count: int, name: str) -> list[int]:
    """Indices of the attacked rows that the adversary is given."""
    return sorted(torch.randperm(len(context.rows), generator=context.generator(name))[:count].tolist())


def answer_slots(
    context: AttackContext, places: Sequence[int], length: int, longest: int | None = None
) -> list[PromptSlot]:
    """Slots before the questions of given rows, with their answers as targets.

    Args:
        context: of the attack.
        places: indices of the rows among the attacked ones.
        length: of the slots, in tokens.
        longest: maximum tokens of a target. Default: the whole answer.
    """
    encoder = context.model.encoder
    rows = [context.rows[place] for place in places]
    return [prompt_slot(row, encoder, "prefix", length, answer(row, encoder)[:longest]) for row in rows]


def text_steps(
    context: AttackContext,
    rows: Sequence[Example],
    goals: Sequence[Goal],
    place: Place,
    config: SearchConfig,
    name: str,
    match: float = 0.0,
) -> Iterator[SearchStep]:
    """Search for a text in the slots of some rows that can be typed before or after the first row's question."""
    encoder, first = context.model.encoder, goals[0].slot

    def ids_of(text: str) -> tuple[int, ...] | None:
        return own_ids(rows[0], encoder, place, text, first)

    start = ids_of(filler(config.length))
    if start is None:
        raise UserError("the tokenizer merges an adversary's text with the question, so there is no slot to search in")

    def admitted(ids: Sequence[int]) -> bool:
        return ids_of(typed(context, ids)) == tuple(ids)

    return search(context.model, goals, start, admitted, config, context.generator(name), match)


def typed(context: AttackContext, ids: Sequence[int]) -> str:
    """The text that an adversary types to produce these ids."""
    return str(context.model.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)).strip()


def optimize_text(
    context: AttackContext,
    given: Sequence[int],
    goals: Sequence[Goal],
    config: SearchConfig,
    steps: int,
    points: int,
    name: str,
    match: float = 0.0,
) -> Optimized:
    """Search for one text before every question, and ask with it about the rows that were not given."""
    encoder = context.model.encoder
    rows = [context.rows[place] for place in given]

    def ask(found: SearchStep) -> list[Value]:
        text = typed(context, found.ids)

        def prompt(row: Example) -> tuple[int, ...]:
            return encoder.asked(with_text(asked_as_text(row, encoder), text, "prefix"))

        return ask_with(context, prompt, [place for place in range(len(context.rows)) if place not in given])

    found = text_steps(context, rows, goals, "prefix", config, name, match)
    return _optimize(context, found, steps, points, ask)


def optimize_vectors(
    context: AttackContext,
    goals: Sequence[Goal],
    config: SoftPromptConfig,
    steps: int,
    points: int,
    name: str,
    match: float = 0.0,
) -> Optimized:
    """Train vectors before every question, and ask with them about all rows, including the given ones."""
    encoder = context.model.encoder
    soft = soft_ids(config.length)

    def prompt(row: Example) -> tuple[int, ...]:
        return prompt_slot(row, encoder, "prefix", config.length, ()).prompt(soft)

    def ask(vectors: Tensor) -> list[Value]:
        with softened(context.model, vectors):
            return ask_with(context, prompt, range(len(context.rows)))

    return _optimize(context, tune(context.model, goals, config, context.generator(name), match), steps, points, ask)


def _optimize(
    context: AttackContext, found: Iterator[Step], steps: int, points: int, ask: Callable[[Step], list[Value]]
) -> Optimized:
    """Take steps and measure at milestones, as far as time allows.

    Raises:
        OutOfTime: time ran out before the first milestone.
    """
    curve: list[CurvePoint] = []
    wanted = milestones(steps, points)
    with context.progress.bar("optimising a prompt", steps) as bar:
        for number, one in zip(range(1, steps + 1), found, strict=False):
            try:
                context.check_time()
                if number in wanted:
                    curve.append(CurvePoint(number, ask(one)))
            except OutOfTime:
                if not curve:
                    raise
                return Optimized(curve, True)
            bar.advance()
    return Optimized(curve, False)


def ask_with(
    context: AttackContext, prompt: Callable[[Example], tuple[int, ...]], places: Sequence[int], reason: str = GIVEN
) -> list[Value]:
    """Knowledge that the model shows of some attacked rows after their prompts; the reason for all others."""
    rows = [context.rows[place] for place in places]
    answers = context.answers([prompt(row) for row in rows], label="asking with the prompt")
    values: list[Value] = [reason] * len(context.rows)
    for place, row, texts in zip(places, rows, answers, strict=True):
        values[place] = context.knows(row, texts[0])
    return values


def restricted(values: Sequence[Value], places: Sequence[int], reason: str) -> list[Value]:
    """The values of some rows, and the reason for all others."""
    return [value if place in places else reason for place, value in enumerate(values)]


def text_attempt(optimized: Optimized, given: Sequence[int], variant: str) -> Attempt:
    """The attempt of one text."""
    curve = optimized.curve
    return Attempt(variant, curve[-1].knowledge, len(given), optimized.steps, along="steps", curve=curve)


def vector_attempts(optimized: Optimized, given: Sequence[int], variant: str, own: str) -> Iterator[Attempt]:
    """The attempts of vectors: on rows that they were not trained on and, separately, on those that they were."""
    others = [place for place in range(len(optimized.curve[-1].knowledge)) if place not in given]
    for name, places, reason in ((variant, others, GIVEN), (own, given, "the vectors were not trained on this row")):
        curve = [CurvePoint(point.at, restricted(point.knowledge, places, reason)) for point in optimized.curve]
        inside = InternalMeasure(
            "said of the rows that the vectors were trained on; they can carry answers by themselves"
        )
        yield Attempt(
            name,
            curve[-1].knowledge,
            len(given),
            optimized.steps,
            seconds=None if name == variant else 0.0,
            along="steps",
            curve=curve,
            inside=None if name == variant else inside,
        )
