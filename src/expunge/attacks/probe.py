"""Probe: a linear classifier of each block's states separates right from wrong answers (arXiv:1610.01644)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from expunge.attacks._multiple_choice import (
    ChoiceStates,
    MultipleChoice,
    attacked_choices,
    choice_states,
    cross_selected,
    multiple_choices,
)
from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt, CurvePoint, InternalMeasure

Numbers = NDArray[np.float64]
CONTROL = "control labels"
"""Random labels: success on them shows the capacity of the probe itself (arXiv:1909.03368)."""


class Probe(Attack):
    """Ridge regression from a block's state after an answer to whether the answer is right.

    The mean over a row's answers is subtracted from each state, so that only differences between answers remain. The
    probe is trained on retain rows and on the forget rows of the other folds; a row counts if its right answer gets the
    highest value. The block is selected on the other half of the rows; the curve shows every block. A row is never
    scored by a probe that was trained on it, but wrong answers can differ from right ones in style alone: compare with
    a model that was never trained on the rows.
    """

    access = "weights"
    tries = ("white-box probing",)

    class Config(Attack.Config):
        """Options of the probe."""

        wrong: int = Field(3, ge=1, description="Wrong answers beside the right one; chance is 1 / (wrong + 1)")
        folds: int = Field(
            5, ge=2, description="Folds of the forget rows, each scored by a probe trained on the others"
        )
        retain_rows: int = Field(32, ge=0, description="Retain rows for training the probe, a seeded sample")
        penalty: float = Field(
            1.0, gt=0, description="Penalty of the ridge regression, relative to the width of a state"
        )

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """The answers themselves, then control labels."""
        choices = attacked_choices(context, self.config.wrong)
        known = self._retain(context)
        order = torch.randperm(len(choices.attacked), generator=context.generator("probe"))
        attacked = _differences(choices.attacked, context.cached("probe", lambda: choice_states(context.model, known)))
        original = None
        if choices.original is not None:
            retain = context.cached(f"{ORIGINAL}probe", lambda: choice_states(context.original(), known))
            original = _differences(choices.original, retain)
        for variant in ("", CONTROL):
            right = self._right_ones(context, len(attacked), variant)
            found = self._scored(attacked, len(choices.attacked), right, order)
            before = None if original is None else self._scored(original, len(choices.attacked), right, order)
            yield Attempt(
                variant,
                choices.values(cross_selected(found, order)),
                given=len(known),
                along="block",
                curve=[CurvePoint(layer, choices.values(values)) for layer, values in enumerate(found)],
                inside=InternalMeasure(
                    "right answer told from wrong ones by a linear probe of a block",
                    chance=1 / (self.config.wrong + 1),
                    original=[] if before is None else choices.values(cross_selected(before, order)),
                ),
            )

    def _retain(self, context: AttackContext) -> list[MultipleChoice]:
        """Retain rows as multiple-choice questions."""
        rows = context.splits.retain
        drawn = torch.randperm(len(rows), generator=context.generator("probe/retain"))[: self.config.retain_rows]
        laid = multiple_choices(context, [rows[index] for index in sorted(drawn.tolist())], self.config.wrong)
        return [one for one in laid if not isinstance(one, str)]

    def _right_ones(self, context: AttackContext, num_rows: int, variant: str) -> Numbers:
        """(rows,) index of the answer labelled right: the first, or a random one with control labels."""
        if variant != CONTROL:
            return np.zeros(num_rows, dtype=np.int64)
        drawn = torch.randint(self.config.wrong + 1, (num_rows,), generator=context.generator("probe/control"))
        return drawn.numpy()

    def _scored(self, states: Numbers, num_forget: int, right: Numbers, order: Tensor) -> Tensor:
        """Whether the right answer of each forget row gets the highest value, per block: (L, R).

        Args:
            states: (rows, answers, L, D), the forget rows first.
            num_forget: R.
            right: (rows,) index of the right answer.
            order: of the forget rows when they are divided into folds.
        """
        found = torch.zeros(states.shape[2], num_forget)
        fold = np.full(len(states), -1)
        fold[order.numpy()] = np.arange(num_forget) % self.config.folds
        for number in range(min(self.config.folds, num_forget)):
            held, train = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
            for layer in range(states.shape[2]):
                values = self._values(states[train, :, layer], right[train], states[held, :, layer])
                found[layer, held] = torch.from_numpy(_highest(values, right[held])).float()
        return found

    def _values(self, states: Numbers, right: Numbers, held: Numbers) -> Numbers:
        """Predictions of a probe for held-out answers: (n, A, D), (n,), (m, A, D) -> (m, A)."""
        from sklearn.linear_model import Ridge

        _, answers, width = states.shape
        wanted = np.eye(answers)[right] - 1 / answers
        scale = np.sqrt(np.square(states).mean((0, 1))) + np.finfo(np.float32).tiny
        ridge = Ridge(alpha=self.config.penalty * width, fit_intercept=False)
        ridge.fit((states / scale).reshape(-1, width), wanted.ravel())
        values: Numbers = ridge.predict((held / scale).reshape(-1, width)).reshape(-1, answers)
        return values


def _differences(forget: Sequence[ChoiceStates], retain: Sequence[ChoiceStates]) -> Numbers:
    """(rows, answers, L, D) states after each answer, minus the mean over the answers of the row."""
    states = torch.stack([one.read() for one in (*forget, *retain)]).double()
    return (states - states.mean(1, keepdim=True)).numpy()


def _highest(values: Numbers, right: Numbers) -> NDArray[np.bool_]:
    """Whether the right answer has a higher value than any other: (R, A), (R,) -> (R,)."""
    rows = np.arange(len(values))
    others = values.copy()
    others[rows, right] = -np.inf
    higher: NDArray[np.bool_] = values[rows, right] > others.max(axis=1)
    return higher
