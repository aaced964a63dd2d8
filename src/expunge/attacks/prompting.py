"""Prompting: the question rephrased by families of prompt templates (after arXiv:2402.16835)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from pydantic import Field

from expunge.attacks._families import Filled, PromptFamily, filled, load_families
from expunge.attacks.base import Attack, AttackContext, Attempt, Value
from expunge.core.records import Frozen
from expunge.data.example import Example
from expunge.evaluate.base import Absent


class Prompting(Attack):
    """Asks with every family of `families.toml` and of the user's own file; a row counts if any wording succeeds.

    Rows that a family cannot ask about, or whose prompt would contain the answer, have no value for it.
    """

    class Config(Frozen):
        """Options of the families."""

        families: tuple[str, ...] = Field((), description="Names; empty: all")
        file: str = Field("", description="TOML file of further families, in the format of the shipped families.toml")
        shots: int = Field(2, ge=1, description="Maximum number of other forget rows that are shown with their answers")
        together: int = Field(
            4, ge=1, description="Families whose prompts share batches; the time budget is checked in between"
        )

    access = "prompts"
    default = True
    rank = 1
    tries = ("prefilled answers", "questions in other languages")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.families = load_families(config.file, config.families)

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt per family."""
        for raw in (False, True):  # a batch encodes its common beginning (of the chat template) once
            names = [name for name, family in self.families.items() if family.raw == raw]
            for start in range(0, len(names), self.config.together):
                yield from self._asked(context, names[start : start + self.config.together])

    def _asked(self, context: AttackContext, names: Sequence[str]) -> Iterator[Attempt]:
        """Some families with their prompts batched together; each is assigned time in proportion to its tokens."""
        found = {name: [self._filled(context, self.families[name], row) for row in context.rows] for name in names}
        longest = context.config.max_new_tokens
        limits = {name: min(self.families[name].tokens or longest, longest) for name in names}
        asked = [(one.ids, limits[name]) for name in names for some in found[name] for one in some.prompts]
        started = time.perf_counter()
        answers = context.answers(
            [ids for ids, _ in asked], label=f"{self.name} {len(names)} ways", limits=[limit for _, limit in asked]
        )
        a_token = (time.perf_counter() - started) / max(1, sum(len(ids) + limit for ids, limit in asked))
        texts = iter(answers)
        for name, rows in found.items():
            tokens = sum(len(one.ids) + limits[name] for some in rows for one in some.prompts)
            values: list[Value] = [
                some.absent or max(context.knows(one.row, next(texts)[0]) for one in some.prompts) for some in rows
            ]
            shown = self.config.shots if any("{shots}" in ask for ask in self.families[name].ask) else 0
            yield Attempt(name, values, given=shown, seconds=a_token * tokens, tries=self.families[name].tries)

    def _filled(self, context: AttackContext, family: PromptFamily, row: Example) -> _Row:
        others = context.splits.forget
        order = torch.randperm(len(others), generator=context.generator(f"{self.name}/shots/{row.id}"))
        try:
            return _Row(filled(context.model, family, row, [others[index] for index in order], self.config.shots))
        except Absent as absent:
            return _Row([], str(absent))


class _Row(NamedTuple):
    """A row's prompts, or the reason why it has none."""

    prompts: list[Filled]
    absent: str = ""
