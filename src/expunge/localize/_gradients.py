"""Where two sets of rows pull the same weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.batches import shrinking
from expunge.models.forward import Forward
from expunge.models.gradients import each_gradient
from expunge.models.precision import float64
from expunge.models.tensor_store import TensorStore
from expunge.numerics.token import reduce_tokens


def gradient_cosines(
    model: LanguageModel, forget: Sequence[Encoded], retain: Sequence[Encoded], names: Sequence[Sequence[str]]
) -> list[float]:
    """Cosine between the gradients of two sets' mean answer NLL, over each of several groups of parameters.

    Raises:
        MemoryExhausted: the gradients, or a pass back over a single row, do not fit.
    """
    flat = [name for group in names for name in group]
    first: TensorStore[str] = TensorStore(model.state_memory)
    for name, gradient in _nll_gradients(model, forget, flat).items():
        first.put(name, gradient)
    second = _nll_gradients(model, retain, flat)
    cosines = []
    for group in names:
        one = float64(torch.cat([first[name].flatten() for name in group]).to(model.device))
        other = float64(torch.cat([second[name].flatten() for name in group]))
        cosines.append(float(one @ other / (one.norm() * other.norm())))
    return cosines


def _nll_gradients(model: LanguageModel, sequences: Sequence[Encoded], names: Sequence[str]) -> dict[str, Tensor]:
    """Gradient of the rows' mean token NLL, summed over rows, for the named parameters; float32."""
    named = dict(model.network.named_parameters())
    weights = [named[name] for name in names]

    def work(size: int) -> list[Tensor]:
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]

        def add(place: int, gradient: Tensor) -> None:
            sums[place] += gradient

        with model.evaluating(), each_gradient(model, weights, add):
            for indices in by_length([len(one.ids) for one in sequences], size):
                batch = collate([sequences[index] for index in indices], indices).to(model.device)
                logp = Forward(model, batch).token_logp()
                loss = -reduce_tokens(logp, batch.rows, batch.num_rows, "seq_mean") * batch.num_rows
                loss.backward()  # type: ignore[no-untyped-call]
        return sums

    return dict(zip(names, shrinking(model.budget, model.device, "gradient", work), strict=True))
