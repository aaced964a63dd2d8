"""Logit lens: read the answer from the output of every block, attention and MLP (arXiv:2502.01472)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._multiple_choice import SITES, ChoiceStates, attacked_choices, cross_selected
from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt, CurvePoint, InternalMeasure
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import read_states

_PARTS = {"hidden": "block outputs", "attention": "attention outputs", "ffn": "MLP outputs"}


class LogitLens(Attack):
    """Applies the final norm and the output matrix to each block's output where a row's answers first differ.

    A row counts if the right answer's tokens are the most likely among its answers, teacher-forced. The block to read
    from is selected on the other half of the rows; the curve shows every block. Modules as in arXiv:2502.01472,
    section 5.3, whose answers are the letters of multiple-choice questions.
    """

    access = "weights"
    tries = ("white-box probing",)

    class Config(Attack.Config):
        """Options of the answers."""

        wrong: int = Field(3, ge=1, description="Wrong answers beside the right one; chance is 1 / (wrong + 1)")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt per module of a block, with the original model's numbers if it is known."""
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
                choices.values(cross_selected(right[place], order)),
                along="block",
                curve=[CurvePoint(layer, choices.values(values)) for layer, values in enumerate(right[place])],
                inside=InternalMeasure(
                    "right answer the likeliest of its answers, as read off a block",
                    chance=1 / (self.config.wrong + 1),
                    original=[] if before is None else choices.values(cross_selected(before[place], order)),
                ),
            )


def _right(model: LanguageModel, seen: list[ChoiceStates]) -> Tensor:
    """Whether the right answer is the most likely at each module of each block: (S, L, R)."""
    return torch.stack([_likeliest(model, one) for one in seen], dim=-1)


def _likeliest(model: LanguageModel, seen: ChoiceStates) -> Tensor:
    """(S, L) 1 if the first answer's mean log-probability is higher than that of any other."""
    scores = []
    for labels, states in zip(seen.labels, seen.deciding(), strict=True):
        scores.append(read_states(model, states, labels).mean(-1))
    right, *wrong = scores
    return (right > torch.stack(wrong).amax(0)).float()
