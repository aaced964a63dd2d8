"""SSD: shrink the weights that matter far more for forget rows than for retain rows (arXiv:2308.07707)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from expunge.core.errors import UserError
from expunge.core.records import Frozen
from expunge.edit.base import Advance, Edit
from expunge.losses.base import Setup
from expunge.models.forward import Forward, RowSet
from expunge.models.gradients import each_gradient


class Dampening(Edit):
    """Selective synaptic dampening: `w <- w min(lambda D / F, 1)` for each weight w with `F > alpha D`.

    F and D are a weight's importance on forget rows and on the reference rows: the mean over batches of the squared
    gradient of the mean token loss, which for batches of one row is the diagonal of the Fisher information. The paper's
    D is over the whole training set, forget rows included; a language model's is not at hand, so D is over the retain
    rows by default. Two float32 numbers for each trained weight are held, and the gradient of one weight tensor.
    """

    class Config(Frozen):
        """Which weights are selected, and how far they shrink."""

        alpha: float = Field(10.0, gt=0, description="A weight is selected where F is above alpha times D")
        dampening: float = Field(1.0, gt=0, description="lambda: a selected weight is multiplied by min(lambda D/F, 1)")
        against: Literal["retain", "all"] = Field(
            "retain", description="Rows that D is over: the retain rows, or retain and forget rows as in the paper"
        )
        batch_size: int = Field(1, ge=1, description="Rows whose mean gradient is squared; 1: the Fisher information")

    def check(self, forget: Setup, retain: Setup) -> None:
        """Refuse adapters, float16, and a threshold that no weight can pass.

        Raises:
            UserError: the trainable weights are an adapter's; gradients are computed in float16; or D holds so much of
                F that F is never above alpha D.
        """
        if forget.model.is_adapted:
            raise UserError(
                'model.adapter: dampening shrinks weights of the model, and a new adapter has none; leave out "lora"'
            )
        if forget.model.compute == torch.float16:
            raise UserError(
                'model.precision: squared gradients vanish in float16; dampening needs "float32" or "bfloat16"'
            )
        share = self._forget_share(forget, retain)
        if self.config.alpha * share >= 1:
            raise UserError(
                f"edit.alpha: {self.config.alpha:g} selects no weight, since {share:.0%} of the rows that D is over "
                f'are to be forgotten; take a value below {1 / share:.3g}, or edit.against = "retain"'
            )

    def apply(self, forget: Setup, retain: Setup, advance: Advance) -> None:
        """Measure both importances, then multiply the selected weights."""
        weights = forget.model.trainable()
        num_rows = len(forget.sequences) + len(retain.sequences)
        of_forget, reference = (
            _importance(setup, weights, self.config.batch_size, lambda rows: advance(rows / num_rows))
            for setup in (forget, retain)
        )
        share = self._forget_share(forget, retain)
        selected = shrunk = 0.0
        for weight, ours, theirs in zip(weights, of_forget, reference, strict=True):
            theirs.mul_(1 - share).add_(ours, alpha=share)
            factors = _factors(ours, theirs, self.config.alpha, self.config.dampening)
            with torch.no_grad():
                weight.mul_(factors.to(weight.dtype))
            selected += float((ours > self.config.alpha * theirs).sum())
            shrunk += float((1 - factors).sum(dtype=torch.float64))
        total = sum(weight.numel() for weight in weights)
        self.logs = {"selected_share": selected / total, "mean_factor": 1 - shrunk / max(selected, 1)}
        if not selected:
            self.warnings.append(
                f"No weight is more than {self.config.alpha:g} times as important for forget rows as for others, so "
                "nothing was changed; lower edit.alpha."
            )

    def _forget_share(self, forget: Setup, retain: Setup) -> float:
        """Share of forget rows among those that D is over."""
        if self.config.against == "retain":
            return 0.0
        return len(forget.sequences) / (len(forget.sequences) + len(retain.sequences))


def _factors(forget: Tensor, reference: Tensor, alpha: float, dampening: float) -> Tensor:
    """What each weight is multiplied by: 1 where it is not selected, else `min(lambda D / F, 1)`."""
    shrunk = (dampening * reference / forget).clamp(max=1)
    return torch.where(forget > alpha * reference, shrunk, torch.ones_like(shrunk))


def _importance(setup: Setup, weights: Sequence[nn.Parameter], batch_size: int, done: Advance) -> list[Tensor]:
    """Mean over batches of the squared gradient of the mean token loss, float32, in the shapes of the weights."""
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]

    def add_square(place: int, gradient: Tensor) -> None:
        wide = gradient.float()
        sums[place].addcmul_(wide, wide)

    rows = RowSet(setup.sequences, inputs=setup.inputs)
    starts = range(0, len(setup.sequences), batch_size)
    with each_gradient(setup.model, weights, add_square), setup.model.evaluating():
        for start in starts:
            indices = range(start, min(start + batch_size, len(setup.sequences)))
            (-Forward.of(setup.model, rows, indices).token_logp().mean()).backward()  # type: ignore[no-untyped-call]
            done(len(indices))
    return [total.div_(len(starts)) for total in sums]
