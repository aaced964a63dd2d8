"""A model whose weights are others for a while, and afterwards what they were, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.matrices import Matrix, plain_weights, share_of_blocks
from expunge.models.merging import merged_names

Change = Callable[[str, Tensor], Tensor | None]
"""(name, weight) -> the weight that stands in its place, a new tensor of the same shape; None leaves it."""


@contextmanager
def changed_weights(model: LanguageModel, change: Change) -> Iterator[float]:
    """Within this block of code the weights are what `change` makes of them.

    The old tensors wait untouched and are put back, also after an error. An adapter is merged first, since that is what
    would be published; names are those of the plain network.

    Args:
        model: any model.
        change: asked once for each weight.

    Yields:
        The share of the weights of the decoder blocks that `change` replaced.

    Raises:
        UserError: the weights are quantized, and so packed into numbers that mean something else.
    """
    if getattr(model.base, "is_quantized", False):
        raise UserError(f"model: the weights of '{model.source}' are quantized already and cannot be changed")
    adapted = hasattr(model.network, "peft_config")
    weights = dict(plain_weights(model))
    kept = {name: weight.data for name, weight in weights.items()}
    replaced = []
    try:
        if adapted:
            for name in merged_names(model.network) & weights.keys():
                weights[name].data = weights[name].data.clone()
            model.network.merge_adapter()
        with torch.no_grad():
            for name, weight in weights.items():
                found = change(name, weight.data)
                if found is not None:
                    weight.data = found.to(weight.data)
                    replaced.append(name)
        yield share_of_blocks(model, replaced)
    finally:
        if adapted:
            model.network.unmerge_adapter()
        for name, weight in weights.items():
            weight.data = kept[name]


def each_matrix(matrix: Matrix, weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A weight with every matrix in it changed by itself.

    Args:
        matrix: what the weight holds.
        weight: of its shape.
        change: (out, in) -> (out, in).
    """
    return matrix.together(torch.stack([change(one) for one in matrix.apart(weight)]))
