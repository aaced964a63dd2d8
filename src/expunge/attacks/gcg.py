"""GCG: an optimised text behind or before the question that makes the model answer (arXiv:2307.15043)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from pydantic import Field

from expunge.attacks._objective import goals_of
from expunge.attacks._prompt_slots import asked_as_text, opening, prompt_slot, with_text
from expunge.attacks._search import SearchConfig, SearchStep
from expunge.attacks._universal import (
    answer_slots,
    ask_with,
    check_rows,
    drawn_rows,
    milestones,
    optimize_text,
    text_attempt,
    text_steps,
    typed,
)
from expunge.attacks.base import Attack, AttackContext, Attempt, CurvePoint, OutOfTime
from expunge.data.example import Example

NOT_TRIED = "no suffix was searched for this row"


class GCG(Attack):
    """Uses the model's gradients to find a text that anybody can type afterwards.

    - prefix: one text before every question, optimised on k given rows with their answers as targets, and scored on the
      other rows;
    - suffix: a separate text after the question of each of a few rows. Its target is the opening of the row's answer up
      to the first keyword, or an affirmation; it does not contain the secret, so that the model must supply it.
    """

    access = "weights"
    tries = ("adversarial (optimised) prompts",)

    class Config(Attack.Config, SearchConfig):
        """Options of both searches."""

        rows: int = Field(4, ge=1, description="Forget rows that the adversary of the prefix is given, a seeded sample")
        steps: int = Field(24, ge=0, description="Steps of the search for the prefix; 0: no prefix")
        longest: int = Field(10, ge=1, description="Tokens of a given row's answer that are the prefix's target")
        suffix_rows: int = Field(3, ge=0, description="Rows with a suffix of their own, a seeded sample")
        suffix_steps: int = Field(16, ge=1, description="Steps of the search for each suffix")
        points: int = Field(3, ge=1, description="Number of measurements along the search")

    def check(self, context: AttackContext) -> None:
        """Refuse to train on every row."""
        if self.config.steps:
            check_rows(context, self.config.rows, f"attacks.{self.name}.rows")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """The prefix, then the suffixes."""
        if self.config.steps:
            given = drawn_rows(context, self.config.rows, "gcg/given")
            goals = goals_of(answer_slots(context, given, self.config.length, self.config.longest))
            optimized = optimize_text(
                context, given, goals, self.config, self.config.steps, self.config.points, "gcg/prefix"
            )
            yield text_attempt(optimized, given, "prefix")
            if optimized.cut:
                raise OutOfTime
        if self.config.suffix_rows:
            yield self._suffixes(context)

    def _suffixes(self, context: AttackContext) -> Attempt:
        """One search per row; all rows are asked at the end, with the text of every milestone."""
        places = drawn_rows(context, self.config.suffix_rows, "gcg/suffix")
        texts = {place: self._suffix(context, context.rows[place]) for place in places}
        curve = []
        for step in milestones(self.config.suffix_steps, self.config.points):
            by_row = {context.rows[place].id: texts[place][step] for place in places}

            def prompt(row: Example, by_row: dict[str, str] = by_row) -> tuple[int, ...]:
                encoder = context.model.encoder
                return encoder.asked(with_text(asked_as_text(row, encoder), by_row[row.id], "suffix"))

            curve.append(CurvePoint(step, ask_with(context, prompt, places, NOT_TRIED)))
        return Attempt(
            "suffix", curve[-1].knowledge, 0, self.config.suffix_steps * len(places), along="steps", curve=curve
        )

    def _suffix(self, context: AttackContext, row: Example) -> dict[int, str]:
        """Step -> the best text at that step."""
        encoder = context.model.encoder
        goals = goals_of([prompt_slot(row, encoder, "suffix", self.config.length, opening(row, encoder))])
        steps: Iterator[SearchStep] = text_steps(context, [row], goals, "suffix", self.config, f"gcg/suffix/{row.id}")
        found = {}
        for number, one in enumerate(islice(steps, self.config.suffix_steps), 1):
            context.check_time()
            found[number] = typed(context, one.ids)
        return found
