"""One optimised text, or one set of vectors, before every question: found on some rows, scored on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from expunge.attacks._curves import milestones
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
from expunge.attacks._search import SearchConfig, SearchStep, search
from expunge.attacks._vectors import SoftPromptConfig, tune
from expunge.attacks.base import GIVEN, AttackContext, Attempt, CurvePoint, InternalMeasure, OutOfTime, Value
from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.models.soft_prompt import soft_ids, softened

Step = TypeVar("Step")


@dataclass(frozen=True)
class Optimized:
    """What an optimisation got at its milestones."""

    curve: list[CurvePoint]
    cut: bool
    """Whether the time was over before the last."""

    @property
    def steps(self) -> int:
        """Of its last point."""
        return int(self.curve[-1].at)


def check_rows(context: AttackContext, count: int, option: str) -> None:
    """Refuse to train on rows so that none is left to be scored.

    Raises:
        UserError: too few rows.
    """
    if count >= len(context.rows):
        raise UserError(f"{option}: {count} of {len(context.rows)} attacked rows would be given, and none be scored")


def drawn_rows(context: AttackContext, count: int, name: str) -> list[int]:
    """Places of the attacked rows that the adversary is given."""
    return sorted(torch.randperm(len(context.rows), generator=context.generator(name))[:count].tolist())


def answer_slots(
    context: AttackContext, places: Sequence[int], length: int, longest: int | None = None
) -> list[PromptSlot]:
    """Given rows with room before the question, and their answers as targets.

    Args:
        context: the attack's.
        places: of the rows among the attacked ones.
        length: of what will stand in the holes, in tokens.
        longest: tokens of a target; None: the whole answer.
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
    """A search for a text in the holes of some rows; what it finds can be typed before or behind the first of them."""
    encoder, first = context.model.encoder, goals[0].hole

    def ids_of(text: str) -> tuple[int, ...] | None:
        return own_ids(rows[0], encoder, place, text, first)

    start = ids_of(filler(config.length))
    if start is None:
        raise UserError("the tokenizer merges what an adversary types with the question: no place to search in")

    def admitted(ids: Sequence[int]) -> bool:
        return ids_of(typed(context, ids)) == tuple(ids)

    return search(context.model, goals, start, admitted, config, context.generator(name), match)


def typed(context: AttackContext, ids: Sequence[int]) -> str:
    """The text that an adversary types to give these ids."""
    return str(context.model.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)).strip()


def climb_text(
    context: AttackContext,
    given: Sequence[int],
    goals: Sequence[Goal],
    config: SearchConfig,
    steps: int,
    points: int,
    name: str,
    match: float = 0.0,
) -> Optimized:
    """Search for one text before every question, and ask the rows that were not given with it."""
    encoder = context.model.encoder
    rows = [context.rows[place] for place in given]

    def ask(found: SearchStep) -> list[Value]:
        text = typed(context, found.ids)

        def prompt(row: Example) -> tuple[int, ...]:
            return encoder.asked(with_text(asked_as_text(row, encoder), text, "prefix"))

        return said(context, prompt, [place for place in range(len(context.rows)) if place not in given])

    found = text_steps(context, rows, goals, "prefix", config, name, match)
    return climb(context, found, steps, points, ask)


def climb_vectors(
    context: AttackContext,
    goals: Sequence[Goal],
    config: SoftPromptConfig,
    steps: int,
    points: int,
    name: str,
    match: float = 0.0,
) -> Optimized:
    """Train vectors before every question, and ask all rows with them, those that were given too."""
    encoder = context.model.encoder
    soft = soft_ids(config.length)

    def prompt(row: Example) -> tuple[int, ...]:
        return prompt_slot(row, encoder, "prefix", config.length, ()).prompt(soft)

    def ask(vectors: Tensor) -> list[Value]:
        with softened(context.model, vectors):
            return said(context, prompt, range(len(context.rows)))

    return climb(context, tune(context.model, goals, config, context.generator(name), match), steps, points, ask)


def climb(
    context: AttackContext, found: Iterator[Step], steps: int, points: int, ask: Callable[[Step], list[Value]]
) -> Optimized:
    """Take steps, and ask at milestones; where the time is over, what there is.

    Raises:
        OutOfTime: the time is over before the first milestone.
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


def said(
    context: AttackContext, prompt: Callable[[Example], tuple[int, ...]], places: Sequence[int], reason: str = GIVEN
) -> list[Value]:
    """What the model says of some attacked rows after their prompts; the reason for all others."""
    rows = [context.rows[place] for place in places]
    answers = context.answers([prompt(row) for row in rows], label="asking with the prompt")
    values: list[Value] = [reason] * len(context.rows)
    for place, row, texts in zip(places, rows, answers, strict=True):
        values[place] = context.knows(row, texts[0])
    return values


def only(values: Sequence[Value], places: Sequence[int], reason: str) -> list[Value]:
    """The values of some rows, and a reason for all others."""
    return [value if place in places else reason for place, value in enumerate(values)]


def text_attempt(climb: Optimized, given: Sequence[int], variant: str) -> Attempt:
    """What one text got."""
    curve = climb.curve
    return Attempt(variant, curve[-1].knowledge, len(given), climb.steps, along="steps", curve=curve)


def vector_attempts(climb: Optimized, given: Sequence[int], variant: str, own: str) -> Iterator[Attempt]:
    """What vectors got of the rows that they were not trained on, and apart from it of those that they were."""
    others = [place for place in range(len(climb.curve[-1].knowledge)) if place not in given]
    for name, places, reason in ((variant, others, GIVEN), (own, given, "the vectors were not trained on this row")):
        curve = [CurvePoint(point.at, only(point.knowledge, places, reason)) for point in climb.curve]
        inside = InternalMeasure(
            "said of the rows that the vectors were trained on; they can carry answers by themselves"
        )
        yield Attempt(
            name,
            curve[-1].knowledge,
            len(given),
            climb.steps,
            seconds=None if name == variant else 0.0,
            along="steps",
            curve=curve,
            inside=None if name == variant else inside,
        )
