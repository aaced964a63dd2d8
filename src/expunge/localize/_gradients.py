"""Where two sets of rows pull the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.losses.token import reduce_tokens
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward
from expunge.models.precision import float64


def gradient_cosines(
    model: LanguageModel, forget: Sequence[Encoded], retain: Sequence[Encoded], names: Sequence[Sequence[str]]
) -> list[float]:
    """Cosine between the gradients of two sets' mean answer NLL, over each of several groups of parameters."""
    flat = [name for group in names for name in group]
    first, second = (_nll_gradients(model, sequences, flat) for sequences in (forget, retain))
    cosines = []
    for group in names:
        one, other = (
            float64(torch.cat([gradients[name].flatten() for name in group])) for gradients in (first, second)
        )
        cosines.append(float(one @ other / (one.norm() * other.norm())))
    return cosines


def _nll_gradients(model: LanguageModel, sequences: Sequence[Encoded], names: Sequence[str]) -> dict[str, Tensor]:
    """Gradient of the rows' mean token NLL, summed over rows, for the named parameters; float32."""
    with _only(model, names) as parameters:
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
        for indices in by_length([len(one.ids) for one in sequences], model.budget.tokens("score", model.device)):
            batch = collate([sequences[index] for index in indices], indices).to(model.device)
            with model.evaluating(), torch.enable_grad():
                logp = Forward(model, batch).token_logp()
                loss = -reduce_tokens(logp, batch.rows, batch.num_rows, "seq_mean") * batch.num_rows
            for total, gradient in zip(
                sums, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True
            ):
                total += gradient
    return dict(zip(names, sums, strict=True))


@contextmanager
def _only(model: LanguageModel, names: Sequence[str]) -> Iterator[list[nn.Parameter]]:
    """Within this block of code a backward pass reaches the named parameters and no others."""
    named = dict(model.network.named_parameters())
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    wanted = set(names)
    for name, parameter in named.items():
        parameter.requires_grad_(name in wanted)
    try:
        yield [named[name] for name in names]
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(before[name])
