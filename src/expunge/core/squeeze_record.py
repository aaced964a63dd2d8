"""The record of the squeezing diagnostic (arXiv:2510.19422): what becomes likelier while forget answers fall."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from expunge.core.schema import Frozen, Score

Ranking = Literal["mean", "sum"]
"""The log-probability that ranks candidates, and in which their scores are given: mean per token, or sum."""

Band = Literal["high", "mid", "low"]
"""The likeliest fifth of a prompt's candidates under the original model, the next two fifths, the rest."""


class Estimate(Frozen):
    """A mean over prompts with its 95% bootstrap interval over prompts."""

    value: float
    low: float
    high: float


class Level(Frozen):
    """Log-probability, in nats, of each prompt's target or of one band of its candidates; means over prompts."""

    total: Estimate = Field(description="Summed over the tokens of an answer")
    mean: Estimate = Field(description="Mean over the tokens of an answer")
    total_change: Estimate = Field(description="Of the sum, since step 0, prompt by prompt")
    mean_change: Estimate = Field(description="Of the mean, since step 0, prompt by prompt")


class SqueezeCheck(Frozen):
    """Where the probability of the forget answers was, at one moment of the training."""

    step: int
    epoch: float
    end_of_epoch: bool
    target: Level
    bands: dict[Ranking, dict[Band, Level]]
    relative: dict[Ranking, Estimate] = Field(description="Change of the high band less that of the target")
    probability: Estimate = Field(description="Mean probability of the target's tokens, teacher-forced")
    neighbour_mass: Estimate = Field(
        description="Mean mass on the original model's top-k tokens, the target's left out"
    )
    top_k_mass: Estimate = Field(description="Mean mass on the model's own top-k tokens at this step")
    entropy: Estimate = Field(description="Mean entropy of the next-token distribution along the target, in nats")
    rouge_l: Estimate | None = Field(None, description="ROUGE-L recall of the target in answers sampled at this step")
    keyword_recall: Estimate | None = Field(None, description="Share of those answers that hold a keyword of the row")


class SqueezeScores(Frozen):
    """Summary of the checks of one ranking."""

    squeeze_high: Score = Field(description="Largest change of the high band at any check after step 0, in nats")
    persist: Score = Field(description="Share of epochs at whose end the high band was above its start")


class Squeeze(Frozen):
    """The squeezing diagnostic: do other likely answers of the original model rise while the target falls?"""

    prompts: int = Field(description="Forget prompts that were followed")
    left_out: int = Field(description="Chosen prompts with fewer candidates than bands")
    thin: int = Field(description="Followed prompts with fewer than 10 candidates, also after a wider search")
    generated: int = Field(description="Answers that the original model gave to the chosen prompts")
    duplicates: int = Field(description="Of these, those that repeated another or were empty")
    copies: int = Field(description="Of these, those that were the target itself, or its start where they were cut off")
    checks: list[SqueezeCheck]
    scores: dict[Ranking, SqueezeScores]
