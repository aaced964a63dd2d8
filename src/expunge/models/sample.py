"""Continuations of forget rows, sampled from the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from expunge.core.records import Frozen
from expunge.data.encode import DOCUMENT_PROMPT, Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.continuations import continued, scored

_MIN_DOCUMENT_PROMPT = 32


class SamplingConfig(Frozen):
    """How samples are drawn; the defaults of temperature and top_k are those that BS-S's authors ran with."""

    temperature: float = Field(1.0, gt=0, description="Of the sampling")
    top_k: int = Field(50, ge=0, description="Sample from the k likeliest tokens; 0: from all")
    top_p: float = Field(1.0, gt=0, le=1, description="Sample from the likeliest tokens of this mass; 1: from all")
    max_new_tokens: int = Field(200, ge=1, le=100_000, description="Longest sample in tokens")
    longest: float = Field(
        1.5,
        ge=0,
        description="Longest sample in lengths of the row's own answer, which a run-on sample would outweigh; 0: only "
        "max_new_tokens counts",
    )


@dataclass(frozen=True)
class Sample:
    """A continuation that holds at least one token besides an end token."""

    encoded: Encoded
    """Its tokens are the labels; the last is an end token only if the model emitted it."""
    example: Example
    """The row with the sample instead of its answer, or of the rest of its document."""
    logp: float
    """Mean log-probability of its tokens under the sampling model, whatever the temperature and the cuts."""
    repeats: bool
    """Whether it is the row's own answer."""


class Sampler:
    """Draws continuations of rows.

    A question is the prompt of its row; of a document it is the first quarter, at least 32 tokens.

    Args:
        model: the model as it is at each draw.
        rows: R rows.
        sequences: the same encoded.
        config: how to draw.
    """

    def __init__(
        self, model: LanguageModel, rows: Sequence[Example], sequences: Sequence[Encoded], config: SamplingConfig
    ) -> None:
        self._model = model
        self._rows = rows
        self._prompts = [_prompt(row, encoded) for row, encoded in zip(rows, sequences, strict=True)]
        self._answers = [row.ids[len(prompt) :] for row, prompt in zip(sequences, self._prompts, strict=True)]
        self._config = config

    def draw(self, indices: Sequence[int], seeds: Sequence[Sequence[str]]) -> list[list[Sample]]:
        """Sample rows, length-sorted and in evaluation mode; the model's mode is restored.

        Args:
            indices: which rows.
            seeds: for each of them one string a draw. A draw depends on its seed, the row and the model alone.

        Returns:
            For each row its samples in the order of the seeds, without the empty ones.
        """
        config, prompts = self._config, [self._prompts[index] for index in indices]
        drawn = continued(
            self._model,
            prompts,
            [self._limit(index) for index in indices],
            seeds,
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
        )
        stop_ids = self._model.encoder.stop_ids
        filled = [[ids for ids in answers if ids[0] not in stop_ids] for answers in drawn]
        return [
            [
                self._sample(index, tuple(ids), sum(one.logp) / len(ids))
                for ids, one in zip(answers, scores, strict=True)
            ]
            for index, answers, scores in zip(indices, filled, scored(self._model, prompts, filled), strict=True)
        ]

    def _limit(self, index: int) -> int:
        limits = [self._config.max_new_tokens, self._model.encoder.max_length - len(self._prompts[index])]
        if self._config.longest:
            limits.append(int(self._config.longest * len(self._answers[index])))
        return min(limits)

    def _sample(self, index: int, ids: tuple[int, ...], logp: float) -> Sample:
        row, prompt, text = self._rows[index], self._prompts[index], self._model.encoder.decode
        question = row.text is None
        example = replace(row, answer=text(ids)) if question else replace(row, text=text((*prompt, *ids)))
        return Sample(Encoded((*prompt, *ids), len(prompt)), example, logp, ids == self._answers[index])


def _prompt(row: Example, encoded: Encoded) -> tuple[int, ...]:
    if row.text is None:
        return encoded.prompt
    length = max(_MIN_DOCUMENT_PROMPT, int(DOCUMENT_PROMPT * len(encoded.ids)))
    return encoded.ids[: min(length, len(encoded.ids) - 1)]
