"""The length of the steering target in a linearised model of steering (arXiv:2408.06223, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from expunge.core.report_section import Chart, Mark, Series
from expunge.diagnose._states import one_token, outputs_above
from expunge.diagnose.base import DiagnosticContext, Stage
from expunge.models.base import LanguageModel
from expunge.numerics.intervals import Numbers

HEURISTIC = (
    "c* minimises a linearised objective that models steering as a change of the blocks above, which steering is not: "
    "it serves to compare layers, not as a setting to copy."
)


def best_coefficient(of_direction: Tensor, of_state: Tensor) -> Tensor:
    """`(J u . J h) / ||J u||^2`, the c that minimises `||J (c u - h)||`: (..., D), (..., D) -> (...); nan for J u = 0.

    The minimiser of the paper's linearised objective without its error term. For `J = I` it is `u . h`.
    """
    return (of_direction * of_state).sum(-1) / of_direction.square().sum(-1)


def derivatives(model: LanguageModel, layer: int, state: Tensor, along: Sequence[Tensor]) -> Tensor:
    """Directional derivatives of the blocks above a layer for a sequence of one token, in forward mode.

    Args:
        model: any model.
        layer: its output is the input of the blocks above.
        state: (D,) output of the layer at which to differentiate.
        along: N directions, (D,).

    Returns:
        (N, K, D): of each block above, in each direction.
    """
    batch, last = one_token(model), len(model.blocks()) - 1

    def above(entering: Tensor) -> Tensor:
        return torch.stack([output[0, 0] for output in outputs_above(model, batch, layer, entering[None, None], last)])

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward derivative
        return torch.stack([torch.func.jvp(above, (state,), (direction,))[1].detach() for direction in along])


def lengths(
    coefficients: Mapping[Stage, Mapping[str, Numbers]],
    norms: Mapping[Stage, float],
    layer: int,
    context: DiagnosticContext,
) -> Chart:
    """c* at every block above the layer, with the norm of the states and the length that the run steered to.

    Args:
        coefficients: model -> topic -> (K,) c* at each block above.
        norms: model -> mean norm of a token's state.
        layer: the steered layer.
        context: holds what the run saved.
    """
    series, marks = [], []
    for stage, found in coefficients.items():
        for place, (topic, values) in enumerate(found.items()):
            places = [(float(layer + 1 + block), float(value)) for block, value in enumerate(values)]
            known = [(block, value) for block, value in places if math.isfinite(value)]
            series.append(
                Series(
                    name=f"{stage}, {topic}" if topic else stage,
                    x=[block for block, _ in known],
                    y=[value for _, value in known],
                    tone=stage,
                    weight=place,
                )
            )
        marks.append(Mark(text=f"mean token norm, {stage}", axis="y", at=norms[stage]))
    along = "a seeded direction"
    if context.saved_directions():
        along = "the run's direction"
        steered = context.tensors.get("coefficient", torch.empty(0))
        marks += [Mark(text="the run's length", axis="y", at=float(length)) for length in steered.flatten()]
    return Chart(
        title="Length c* of the steering target",
        caption=f"From derivatives of the blocks above at the mean state, along {along}; left out where they do not "
        "react to it.",
        across="block",
        up="c*",
        style="line",
        series=series,
        marks=marks,
    )
