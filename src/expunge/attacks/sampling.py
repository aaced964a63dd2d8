"""Sampling: many answers at several temperatures; one correct answer is enough (after arXiv:2507.04219)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from expunge.attacks.base import Attack, AttackContext, Attempt, CurvePoint
from expunge.core.records import Frozen


class Sampling(Attack):
    """Samples the plain question repeatedly; a row counts if any of its answers states the fact."""

    class Config(Frozen):
        """Options of the sampling."""

        temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
            (0.7, 1.3), min_length=1, description="Sampling temperatures; the evaluation itself samples at 1"
        )
        samples: int = Field(4, ge=1, le=10_000, description="Answers per question and temperature")

    access = "prompts"
    default = True
    rank = 2
    tries = ("samples at several temperatures",)

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt for each temperature; the curve is over the number of samples."""
        prompts = [context.model.encoder.asked(row) for row in context.rows]
        for temperature in self.config.temperatures:
            seeds = [
                [f"{context.seed}/{self.name}/{temperature}/{row.id}/{draw}" for draw in range(self.config.samples)]
                for row in context.rows
            ]
            texts = context.answers(prompts, seeds, temperature, label=f"{self.name} at {temperature:g}")
            known = [[context.knows(row, text) for text in some] for row, some in zip(context.rows, texts, strict=True)]
            counts = sorted({*(2**power for power in range(self.config.samples.bit_length())), self.config.samples})
            curve = [CurvePoint(count, [max(some[:count]) for some in known]) for count in counts]
            yield Attempt(f"temperature {temperature:g}", curve[-1].knowledge, along="samples", curve=curve)
