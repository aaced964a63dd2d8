"""Logit lens: read the answer off every block, attention and MLP output (arXiv:2502.01472)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._multiple_choice import SITES, ChoiceStates, attacked_choices, read_elsewhere
from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt, CurvePoint, InternalMeasure
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import read_states

_PARTS = {"hidden": "block outputs", "attention": "attention outputs", "ffn": "MLP outputs"}


class LogitLens(Attack):
    """The final norm and the output matrix, applied where a row's answers first differ, to what each block gives.

    A row counts where the right answer's tokens are the likeliest of its answers, teacher-forced. Where among the
    blocks it is read is decided by the other half of the rows; the curve shows every block. Parts as in
    arXiv:2502.01472, section 5.3, where the answers are the letters of multiple-choice questions.
    """

    access = "weights"
    tries = ("white-box probing",)

    class Config(Attack.Config):
        """How many answers there are."""

        wrong: int = Field(3, ge=1, description="Wrong answers beside the right one; chance is 1 / (wrong + 1)")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt for each part of a block; the original model's numbers beside them where it is known."""
        choices = attacked_choices(context, self.config.wrong)
        right = _right(context.model, choices.attacked)
        before = None
        if choices.original is not None:
            states = choices.original
            before = context.cached(f"{ORIGINAL}lens/{self.config.wrong}", lambda: _right(context.original(), states))
        for place, site in enumerate(SITES):
            order = torch.randperm(right.shape[-1], generator=context.generator("lens"))
            yield Attempt(
                _PARTS[site],
                choices.values(read_elsewhere(right[place], order)),
                along="block",
                curve=[CurvePoint(layer, choices.values(values)) for layer, values in enumerate(right[place])],
                inside=InternalMeasure(
                    "right answer the likeliest of its answers, as read off a block",
                    chance=1 / (self.config.wrong + 1),
                    original=[] if before is None else choices.values(read_elsewhere(before[place], order)),
                ),
            )


def _right(model: LanguageModel, seen: list[ChoiceStates]) -> Tensor:
    """Whether the right answer is the likeliest at each part of each block: (S, L, R)."""
    return torch.stack([_likeliest(model, one) for one in seen], dim=-1)


def _likeliest(model: LanguageModel, seen: ChoiceStates) -> Tensor:
    """(S, L) 1 where the first answer has the highest mean log-probability, and no other as high a one."""
    scores = []
    for labels, states in zip(seen.labels, seen.deciding(), strict=True):
        scores.append(read_states(model, states, labels).mean(-1))
    right, *wrong = scores
    return (right > torch.stack(wrong).amax(0)).float()
