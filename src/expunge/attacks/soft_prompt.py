"""Soft prompt: vectors before the question, trained on a few forget rows (arXiv:2104.08691)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from expunge.attacks._objective import goals_of
from expunge.attacks._universal import answer_slots, check_rows, climb_vectors, drawn_rows, vector_attempts
from expunge.attacks._vectors import SoftPromptConfig
from expunge.attacks.base import Attack, AttackContext, Attempt


class SoftPrompt(Attack):
    """What no text says, input embeddings can: the continuous form of an optimised prompt, and its upper bound.

    The vectors stand where the question begins and are trained to bring out the answers of k given rows. What counts as
    said is said of the other rows; what is said of the given ones is shown apart, since vectors can carry answers.
    """

    access = "weights"
    tries = ("adversarial (optimised) prompts",)

    class Config(Attack.Config, SoftPromptConfig):
        """Length and budget."""

        rows: int = Field(4, ge=1, description="Forget rows that the adversary is given, a seeded sample")
        steps: int = Field(32, ge=1, description="Training steps")
        points: int = Field(3, ge=1, description="Numbers of steps at which all rows are asked")

    def check(self, context: AttackContext) -> None:
        """Refuse to be given every row."""
        check_rows(context, self.config.rows, f"attacks.{self.name}.rows")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """The other rows, then the given ones."""
        given = drawn_rows(context, self.config.rows, self.name)
        goals = goals_of(answer_slots(context, given, self.config.length))
        climb = climb_vectors(context, goals, self.config, self.config.steps, self.config.points, self.name)
        yield from vector_attempts(climb, given, "other rows", "given rows")
