"""Direction ablation: remove a steered direction from hidden states (arXiv:2409.18025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks.base import ORIGINAL, Attack, AttackContext, Attempt
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.losses.steering import chosen_layer, mean_shifts, saved_directions
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import block_outputs
from expunge.models.sites import ablated


class DirectionAblationAttack(Attack):
    """`h <- h - (h . u) u` at every token, with u from up to three sources.

    - saved: the direction that the run steered to, at the block where it steered;
    - shift: the mean change of the forget rows' states there relative to the original model;
    - contrast: per block, the difference between the mean states of forget and retain prompts at the last token (after
      arXiv:2406.11717), which refusals rely on; it needs no other model.

    Directions of several topics are removed together.
    """

    access = "weights"

    class Config(Attack.Config):
        """Options of the directions."""

        layer: int | None = Field(
            None,
            description="Block of the saved direction and the shift, negative from the end. Default: where the run "
            "steered, or 0.23 of the depth",
        )
        contrast_rows: int = Field(64, ge=1, description="Maximum number of rows per split for the contrast")

    def check(self, context: AttackContext) -> None:
        """Refuse a layer that the model does not have."""
        self._layer(context)

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt per available source."""
        layer = self._layer(context)
        if saved := saved_directions(context.tensors):
            with ablated(context.model, layer, torch.stack([*saved.values()])):
                yield Attempt("saved", context.ask_directly("without the saved direction"))
        if context.load_original is not None:
            before = context.cached(f"{ORIGINAL}ablation/{layer}", lambda: _states(context, context.original(), layer))
            moved = _states(context, context.model, layer) - before
            if len(shifts := mean_shifts(moved, [row.topic for row in context.rows])):
                with ablated(context.model, layer, shifts):
                    yield Attempt("shift", context.ask_directly("without the mean shift"), given=len(context.rows))
        if context.splits.retain:
            contrast = self._contrast(context)
            with ExitStack() as stack:
                for place, direction in enumerate(contrast):
                    stack.enter_context(ablated(context.model, place, direction[None]))
                said = context.ask_directly("without the contrast")
            yield Attempt("contrast", said, given=2 * self.config.contrast_rows)

    def _layer(self, context: AttackContext) -> int:
        option = f"attacks.{self.name}.layer"
        return chosen_layer(context.model, self.config.layer, option, context.steered, context.tensors, context.trained)

    def _contrast(self, context: AttackContext) -> Tensor:
        """(L, D) mean state at the last prompt token of forget rows, minus that of retain rows."""
        forget, retain = context.splits.forget, context.splits.retain
        means = [self._mean_state(context, some[: self.config.contrast_rows]) for some in (forget, retain)]
        return means[0] - means[1]

    def _mean_state(self, context: AttackContext, rows: Sequence[Example]) -> Tensor:
        """(L, D)."""
        prompts = [context.model.encoder.asked(row) for row in rows]
        return block_outputs(context.model, [Encoded(ids, len(ids)) for ids in prompts], "last").mean(0)


def _states(context: AttackContext, model: LanguageModel, layer: int) -> Tensor:
    """(R, D) output of a block, averaged over each attacked row's tokens."""
    rows = [context.model.encoder.example(row) for row in context.rows]
    return block_outputs(model, rows, "mean")[:, layer]
