"""Interpolation: weights moved part of the way back to the original model's (arXiv:2212.04089)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field

from expunge.attacks._weights import strength_curve
from expunge.attacks.base import Attack, AttackContext, Attempt, CurvePoint, InternalMeasure, Value
from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.batches import free_cached
from expunge.models.matrices import plain_weights
from expunge.models.stored_weights import StoredWeights
from expunge.models.temporary_weights import ChangeWeight
from expunge.models.weight_backup import WeightBackup, weight_backup

HALFWAY = 0.5
Share = Annotated[float, Field(gt=0, lt=1)]


class Interpolation(Attack):
    """Measures how superficial the change is; an adversary who holds the original model does not need this attack.

    `weights = unlearned + share * (original - unlearned)` for all weights. The first result is the knowledge halfway.
    The second is, per row, 1 minus the smallest share at which its answer is given: 1 if the unlearned model gives it,
    0 if no share does.
    """

    access = "weights"
    needs_original = True

    class Config(Attack.Config):
        """Options of the interpolation."""

        shares: tuple[Share, ...] = Field((0.1, 0.25, 0.75), description="Shares of the way, besides one half")

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """The knowledge halfway, with a curve over shares; then how soon each answer returns.

        Raises:
            UserError: the original model has other weights than this one.
        """
        theirs = _original(context)
        free_cached(context.model.device)

        def changes(share: float) -> list[ChangeWeight]:
            return [lambda name, weight: torch.lerp(weight.float(), theirs[name].to(weight.device).float(), share)]

        curve, covered = strength_curve(context, (*self.config.shares, HALFWAY), changes, "back by")
        halfway = next(point for point in curve if point.at == HALFWAY)
        yield Attempt("halfway", halfway.knowledge, along="share of the way", curve=curve, covered=covered)
        soonest = soon([CurvePoint(0.0, context.unlearned_plain), *curve])
        measure = "1 less the share of the way back to the original weights at which an answer is said"
        yield Attempt("how soon", soonest, seconds=0.0, inside=InternalMeasure(measure, original=[1.0] * len(soonest)))


def _original(context: AttackContext) -> StoredWeights | WeightBackup:
    """The weights of the original model, read one at a time if possible."""
    read = None if context.read_original is None else context.read_original(context.model)
    shapes = {name: weight.shape for name, weight in plain_weights(context.model)}
    return read or _copied(context.original(), shapes)


def _copied(original: LanguageModel, shapes: Mapping[str, torch.Size]) -> WeightBackup:
    """A backup of the original model's weights that takes no device memory beside the attacked model."""
    weights = dict(plain_weights(original))
    for name, shape in shapes.items():
        if name not in weights or weights[name].shape != shape:
            raise UserError(f"the original model has no weight {name} of the attacked model's shape")
    found = weight_backup(original.base)
    for name in shapes:
        found.keep(name, weights[name])
    return found


def soon(curve: Sequence[CurvePoint]) -> list[Value]:
    """For each row, 1 minus the first position of the curve at which it is known; 0 if it never is."""
    rows = zip(*(point.knowledge for point in curve), strict=True)
    return [
        max((1 - point.at for point, value in zip(curve, row, strict=True) if value == 1), default=0.0) for row in rows
    ]
