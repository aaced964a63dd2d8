"""Soft prompt: vectors before the question, trained on a few forget rows (arXiv:2104.08691)."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from expunge.attacks._objective import goals_of
from expunge.attacks._search import SoftPromptConfig
from expunge.attacks._universal import answer_slots, check_rows, drawn_rows, optimize_vectors, vector_attempts
from expunge.attacks.base import Attack, AttackContext, Attempt


class SoftPrompt(Attack):
    """The continuous form of an adversarial prompt, and its upper bound: input embeddings need not be any text.

    The vectors precede the question and are trained towards the answers of k given rows. Only the other rows count; the
    given ones are reported separately, since the vectors themselves can encode answers.
    """

    access = "weights"
    tries = ("adversarial (optimised) prompts",)

    class Config(Attack.Config, SoftPromptConfig):
        """Options of the training."""

        rows: int = Field(4, ge=1, description="Forget rows that the adversary is given, a seeded sample")
        steps: int = Field(32, ge=1, description="Training steps")
        points: int = Field(3, ge=1, description="Number of measurements along the training")

    def check(self, context: AttackContext) -> None:
        """Refuse to train on every row."""
        check_rows(context, self.config.rows, f"attacks.{self.name}.rows")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """The other rows, then the given ones."""
        given = drawn_rows(context, self.config.rows, self.name)
        goals = goals_of(answer_slots(context, given, self.config.length))
        optimized = optimize_vectors(context, goals, self.config, self.config.steps, self.config.points, self.name)
        yield from vector_attempts(optimized, given, "other rows", "given rows")
