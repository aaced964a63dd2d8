"""Leakage: does a question that may be answered carry the forbidden one along? (after arXiv:2501.19202)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field

from expunge.attacks.base import Attack, Attempt, Context, Inside, Value
from expunge.core.records import Frozen
from expunge.data.example import Example, holds_any


class Leakage(Attack):
    """Asks one forget and one retain question in one breath, and retain questions beside the words of a forget row.

    The last tells of damage, not of knowledge: whether what should stay is still said when a forgotten subject is
    named in passing, against the same retain questions asked plainly.
    """

    class Config(Frozen):
        """How the two questions are put together."""

        first: str = Field(
            "Answer both questions.\n1. {forget}\n2. {retain}", description="Template with the forget question first"
        )
        last: str = Field(
            "Answer both questions.\n1. {retain}\n2. {forget}", description="Template with the retain question first"
        )
        beside: str = Field(
            "We spoke about this before: {forget} Now something else. {retain}",
            description="Template of a retain question beside the words of a forget row",
        )

    access = "prompts"
    default = True
    tries = ("mixed questions",)

    def run(self, context: Context) -> Iterator[Attempt]:
        """Two attempts on forget answers, one on retain answers."""
        retained = self._partners(context)
        if not retained:
            reason = "no retain question to ask with it"
            yield Attempt("mixed questions", [reason] * len(context.rows))
            return
        pairs = list(zip(context.rows, retained, strict=True))
        for variant, template in (
            ("forget question first", self.config.first),
            ("forget question last", self.config.last),
        ):
            yield Attempt(variant, self._said(context, template, pairs, [row for row, _ in pairs]))
        beside = self._said(context, self.config.beside, pairs, retained)
        plain = self._said(context, "{retain}", pairs, retained)
        inside = Inside("retain questions answered beside forget words", original=plain, better="higher")
        yield Attempt("retain answers", beside, inside=inside)

    def _said(
        self, context: Context, template: str, pairs: Sequence[tuple[Example, Example]], wanted: Sequence[Example]
    ) -> list[Value]:
        """What is known of the wanted row of each pair; a row is asked only if its prompt does not tell its answer."""
        texts = [template.format(forget=row.asked, retain=other.asked) for row, other in pairs]
        told = [holds_any(text, row.keywords) for text, row in zip(texts, wanted, strict=True)]
        prompts = [
            context.model.encoder.prompt(text, row.id)
            for text, row, tells in zip(texts, wanted, told, strict=True)
            if not tells
        ]
        answers = iter(context.answers(prompts, label=self.name))
        return [
            "the prompt itself would hold the answer" if tells else context.knows(row, next(answers)[0])
            for row, tells in zip(wanted, told, strict=True)
        ]

    def _partners(self, context: Context) -> list[Example]:
        """For each attacked row a retain question with an answer, drawn with the seed."""
        rows = [row for row in context.splits.retain if row.text is None]
        if not rows:
            return []
        generator = context.generator(f"{self.name}/partners")
        return [rows[index] for index in torch.randint(len(rows), (len(context.rows),), generator=generator).tolist()]


def _tells(text: str, row: Example) -> bool:
    return holds_any(text, row.keywords)
