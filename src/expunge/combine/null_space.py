"""Null space: the forget loss moves weights only where retain inputs hardly reach (arXiv:2602.19275)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from expunge.combine._inputs import Moments, distinct_tokens, fitting, second_moments, trained_matrices
from expunge.combine._projected_adam import Constraint, ProjectedAdam
from expunge.combine._projection import Projection, ProjectionConfig, held, relax
from expunge.combine.base import Combine, Step, StepLosses, present
from expunge.core.errors import UserError
from expunge.data.encode import Encoded
from expunge.data.generator import named_generator
from expunge.losses.base import Setup
from expunge.models.matrices import WeightMatrix
from expunge.models.precision import float64

_WANTED = 10
"""Distinct retain tokens for each input of a matrix; with as many as inputs the null space is an accident of the
sample, and at 10 held-out inputs have at most 1.2 times the allowed energy in it."""


class NullSpace(Combine):
    """Relaxed null-space projection of the forget gradient, computed once from the original model's retain inputs.

    A reconstruction: KUDA's abstract names the projection; the rule, its threshold and what is projected are not known
    here, and each is an option. For a matrix W with inputs x, a change `dW P` moves what W gives on retain tokens by a
    mean square of at most the largest free eigenvalue times `||dW P||^2`. The retain gradient is never projected: it
    lies where the retain inputs are. A trained bias shifts all outputs alike, so only the retain loss moves it.

    Modes `update` and `reparam` bring an Adam of their own, so that `train.optimizer` is not used, and
    `train.weight_decay` pulls towards the original weights. Adam brings every gradient to full size, also that of a
    retain loss which starts at zero, such as a distance from the original states: beside one of those a small
    `retain_weight` holds them better than 1. `grad` projects the gradient alone and leaves the step to
    `train.optimizer`: Adam then leads out of the projection again, which is what the mode is there to show.
    The guarantee is for float32: a model that is stored in bfloat16 is rounded to it at the end.
    """

    class Config(ProjectionConfig):
        """The projection, and how the two gradients share a step."""

        mode: Literal["update", "grad", "reparam"] = Field(
            "update",
            description="Project the forget loss's Adam step; its gradient only; or all that forgetting did so far",
        )
        retain_weight: float = Field(
            1.0, ge=0, description="Of the retain loss's step, or of its gradient in mode grad; 0: never computed"
        )
        clip: float = Field(
            1.0, ge=0, description="Each gradient is clipped to this norm, the forget one as projected; 0: never"
        )
        retain_fraction: float = Field(
            1.0, gt=0, le=1, description="Share of the retain rows whose inputs are protected, a seeded sample"
        )
        skip_first: bool = Field(
            True, description="Leave out position 0, whose huge state would be most of the retain energy"
        )
        normalise_tokens: bool = Field(False, description="Give every token the same energy")

    logged = ("gradient_cosine", "projected_gradient_cosine", "displacement", "null_space_share")

    def prepare(self, retain: Setup) -> None:
        """Stream the retain rows through the blocks and find the free directions of every trained matrix.

        Raises:
            UserError: weights that are no matrices of the blocks, fewer retain tokens than inputs, no free direction.
        """
        matrices = trained_matrices(retain.model)
        sequences = self._sampled(retain)
        self._check_tokens(matrices, distinct_tokens(sequences, self.config.skip_first))
        start = retain.inputs if len(sequences) == len(retain.sequences) else None
        self._projections: dict[nn.Parameter, list[Projection]] = {}
        self._matrices = {matrix.weight: matrix for matrix in matrices}
        tokens: list[tuple[WeightMatrix, int]] = []
        for group in fitting(matrices, retain.model.device):
            moments = second_moments(
                retain.model,
                group,
                sequences,
                skip_first=self.config.skip_first,
                normalise=self.config.normalise_tokens,
                start=start,
            )
            tokens += [(matrix, count) for matrix in group for count in moments[matrix.weight].tokens]
            self._relax(group, moments)
        self._warn_of_held(tokens)
        self._original = {weight: weight.detach().clone() for weight in retain.model.trainable()}
        self._sums: dict[nn.Parameter, Tensor] = {}
        self._forget: dict[nn.Parameter, Tensor] = {}
        shares = [projection.share for some in self._projections.values() for projection in some]
        self._share = sum(shares) / len(shares)
        if not any(shares):
            raise UserError(
                f"combine: no direction is free by rule {self.config.rule}, so that nothing could be forgotten; "
                "raise combine.energy or choose another combine.rule"
            )

    def project(self, parameter: nn.Parameter, change: Tensor) -> Tensor:
        """`change P` for a matrix; for a bias `rho change`."""
        if parameter not in self._projections:
            passed: float = self.config.rho
            return passed * change
        matrix, projections = self._matrices[parameter], self._projections[parameter]
        parts = zip(projections, matrix.apart(change), strict=True)
        return matrix.together(torch.stack([projection(part) for projection, part in parts]))

    def optimizer(
        self, parameters: Sequence[nn.Parameter], lr: float, weight_decay: float
    ) -> torch.optim.Optimizer | None:
        """Adam with separate moments and a projected forget step; in mode grad none."""
        if self.config.mode == "grad":
            return None
        apart = self.config.mode == "reparam"
        constraint = Constraint(self._forget, self.project, self._original, self.config.retain_weight, apart)
        return ProjectedAdam(parameters, lr, weight_decay, constraint)

    def accumulate(self, step: Step) -> StepLosses:
        """Add up both gradients apart; before the optimizer steps, project and clip them.

        Cosines between the two gradients and the relative displacement of the weights are logged at that moment.
        """
        forget = self._accumulate_forget(step)
        retain = None
        if self.config.retain_weight:
            value = step.retain()
            step.backward(value)
            retain = value.detach()
        self.logs = self._finish(step.parameters) if step.is_last else {}
        return StepLosses(forget, retain)

    def _accumulate_forget(self, step: Step) -> Tensor:
        """Backpropagate into separate buffers, which replace `.grad` meanwhile."""
        kept = [parameter.grad for parameter in step.parameters]
        for parameter in step.parameters:
            parameter.grad = self._sums.get(parameter)
        value = step.forget()
        step.backward(value)
        for parameter, gradient in zip(step.parameters, kept, strict=True):
            if parameter.grad is not None:
                self._sums[parameter] = parameter.grad
            parameter.grad = gradient
        return value.detach()

    @torch.no_grad()
    def _finish(self, parameters: Sequence[nn.Parameter]) -> dict[str, float | Tensor]:
        raw, retain = dict(self._sums), {parameter: parameter.grad for parameter in parameters}
        self._sums.clear()
        self._forget.clear()
        self._forget.update({parameter: self.project(parameter, gradient) for parameter, gradient in raw.items()})
        logs: dict[str, float | Tensor | None] = {
            "gradient_cosine": _cosine(raw, retain),
            "projected_gradient_cosine": _cosine(self._forget, retain),
            "displacement": self._displacement(),
            "null_space_share": self._share,
        }
        _clip(self._forget.values(), self.config.clip)
        _clip([gradient for gradient in retain.values() if gradient is not None], self.config.clip)
        if self.config.mode == "grad":
            self._sum_up(parameters)
        return present(logs)

    def _sum_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Leave both gradients in `.grad`."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(self.config.retain_weight)
            if parameter in self._forget:
                forget = self._forget[parameter]
                parameter.grad = forget if parameter.grad is None else parameter.grad.add_(forget)

    def _displacement(self) -> Tensor:
        """`||W - W_0|| / ||W_0||` over all trained weights, before this step."""
        moved = torch.stack([(weight - original).norm() for weight, original in self._original.items()])
        share: Tensor = moved.norm() / torch.stack([original.norm() for original in self._original.values()]).norm()
        return share

    def _sampled(self, retain: Setup) -> list[Encoded]:
        count = max(1, round(self.config.retain_fraction * len(retain.sequences)))
        order = torch.randperm(len(retain.sequences), generator=named_generator(f"{retain.seed}/null_space"))
        return [retain.sequences[index] for index in sorted(order[:count].tolist())]

    def _relax(self, matrices: Sequence[WeightMatrix], moments: dict[nn.Parameter, Moments]) -> None:
        """Find the projections of some matrices; the moments of their inputs are freed on the way."""
        projections: dict[int, list[Projection]] = {}
        uses = Counter(id(moments[matrix.weight]) for matrix in matrices)
        for matrix in matrices:
            found = moments.pop(matrix.weight)
            if id(found) not in projections:
                projections[id(found)] = self._relaxed(matrix, found)
            self._projections[matrix.weight] = projections[id(found)]
            uses[id(found)] -= 1
            if not uses[id(found)]:
                del projections[id(found)]  # another one may get its place in memory

    def _relaxed(self, matrix: WeightMatrix, moments: Moments) -> list[Projection]:
        """One projection a matrix; an expert that too few tokens reached to know what is free in it is held."""
        return [
            (held(mean, self.config) if _unknown(matrix, tokens) else relax(mean, self.config)).to(matrix.weight)
            for mean, tokens in zip(moments.means, moments.tokens, strict=True)
        ]

    def _warn_of_held(self, tokens: Sequence[tuple[WeightMatrix, int]]) -> None:
        unknown = sum(_unknown(*pair) for pair in tokens)
        if unknown == len(tokens):
            raise UserError(
                "combine: null_space needs as many retain tokens for an expert as it has inputs, and no expert that "
                "localize chose gets so many; give more or longer retain rows"
            )
        if unknown:
            self.warnings.append(
                f"{unknown} of {len(tokens)} matrices belong to experts that got fewer retain tokens than they have "
                "inputs, so that what is free in them is unknown: the forget loss does not move them. More retain rows "
                "reach more experts."
            )

    def _check_tokens(self, matrices: Sequence[WeightMatrix], num_tokens: int) -> None:
        widest = max(matrices, key=lambda matrix: matrix.num_inputs)
        size = widest.num_inputs
        if num_tokens < size:
            raise UserError(
                f"combine: null_space needs at least {size} retain tokens for {widest.name} with {size} inputs, and "
                f"there are {num_tokens}; give more or longer retain rows ({_WANTED * size} tokens are enough)"
            )
        if num_tokens < _WANTED * size:
            self.warnings.append(
                f"The null space was found from {num_tokens} retain tokens for {size} inputs ({widest.name}): other "
                f"text is protected less than combine.{self.config.rule} says. {_WANTED * size} tokens are enough."
            )


def _unknown(matrix: WeightMatrix, tokens: int) -> bool:
    """Whether an expert got too few tokens; those of a layer are checked before."""
    return matrix.num > 1 and tokens < matrix.num_inputs


def _cosine(first: dict[nn.Parameter, Tensor], second: dict[nn.Parameter, Tensor | None]) -> Tensor | None:
    """Cosine of two gradients over all weights; None where one is missing, NaN where one is zero."""
    pairs = [(gradient, other) for parameter, gradient in first.items() if (other := second.get(parameter)) is not None]
    if not pairs:
        return None
    dot = float64(torch.stack([(one * other).sum() for one, other in pairs])).sum()
    known = [gradient for gradient in second.values() if gradient is not None]
    return dot / (_norm(first.values()) * _norm(known))


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return float64(torch.stack([tensor.square().sum() for tensor in tensors])).sum().sqrt()


def _clip(gradients: Iterable[Tensor], largest: float) -> None:
    """Scale gradients in place so that their common norm is at most `largest`; 0: not at all."""
    gradients = list(gradients)
    if largest and gradients:
        norm = _norm(gradients)
        factor = torch.where(norm > largest, largest / norm, 1.0)
        for gradient in gradients:
            gradient.mul_(factor)
