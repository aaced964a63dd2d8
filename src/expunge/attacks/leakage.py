"""Leakage: do mixed questions leak forgotten answers, or damage retained ones? (after arXiv:2501.19202)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from string import Formatter
from typing import NamedTuple

import torch
from pydantic import Field, field_validator

from expunge.attacks.base import Attack, AttackContext, Attempt, InternalMeasure
from expunge.core.records import Frozen
from expunge.data.example import Example, asked_as, holds_any

_ALONE = "{retain}"


class Leakage(Attack):
    """Asks a forget and a retain question in one prompt, and retain questions beside a mention of a forget row.

    The latter measures damage rather than knowledge: whether retained answers are still given when a forgotten subject
    is mentioned, compared with the same retain questions asked directly.
    """

    class Config(Frozen):
        """Templates that combine the two questions."""

        first: str = Field(
            "Answer both questions.\n1. {forget}\n2. {retain}", description="Template with the forget question first"
        )
        last: str = Field(
            "Answer both questions.\n1. {retain}\n2. {forget}", description="Template with the retain question first"
        )
        beside: str = Field(
            "We spoke about this before: {forget} Now something else. {retain}",
            description="Template of a retain question beside a mention of a forget row",
        )

        @field_validator("first", "last", "beside")
        @classmethod
        def _both(cls, template: str) -> str:
            fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
            if fields != {"forget", "retain"}:
                raise ValueError("a template must contain {forget} and {retain}, and no other field in braces")
            return template

    access = "prompts"
    default = True
    rank = 3
    tries = ("mixed questions",)

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """Two attempts on forget answers, one on retain answers."""
        retained = self._partners(context)
        ways: list[tuple[str, Sequence[Example | None]]] = [
            (self.config.first, context.rows),
            (self.config.last, context.rows),
            (self.config.beside, retained),
            (_ALONE, retained),
        ]
        asked = [
            [_ask(template, *three) for three in zip(context.rows, retained, wanted, strict=True)]
            for template, wanted in ways
        ]
        encoder = context.model.encoder
        prompts = [encoder.asked(asked_as(one.row, one.text)) for some in asked for one in some if not one.absent]
        answers = iter(context.answers(prompts, label=self.name))
        first, last, beside, alone = (
            [one.absent or context.knows(one.row, next(answers)[0]) for one in some] for some in asked
        )
        yield Attempt("forget question first", first)
        yield Attempt("forget question last", last)
        inside = InternalMeasure("retain questions answered beside forget words", original=alone, better="higher")
        yield Attempt("retain answers", beside, inside=inside)

    def _partners(self, context: AttackContext) -> list[Example | None]:
        """For each attacked row, a retain question with an answer, drawn by the seed; None without retain questions."""
        rows = [row for row in context.splits.retain if row.text is None]
        if not rows:
            return [None] * len(context.rows)
        generator = context.generator(f"{self.name}/partners")
        return [rows[index] for index in torch.randint(len(rows), (len(context.rows),), generator=generator).tolist()]


class _MixedPrompt(NamedTuple):
    """A prompt about a row, or the reason why there is none."""

    row: Example
    text: str
    absent: str = ""


def _ask(template: str, forget: Example, retain: Example | None, wanted: Example | None) -> _MixedPrompt:
    """Both questions in one prompt, whose answer must state the wanted row's fact; absent if the prompt contains it."""
    if retain is None or wanted is None:
        return _MixedPrompt(forget, "", "no retain question to ask with it")
    if forget.text is not None:
        return _MixedPrompt(forget, "", "a document is no question")
    text = template.format(forget=forget.asked, retain=retain.asked)
    return _MixedPrompt(
        wanted, text, "the prompt itself would hold the answer" if holds_any(text, wanted.keywords) else ""
    )
