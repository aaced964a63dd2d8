"""Temporarily replace weights; they are restored bit-exactly on exit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.base import LanguageModel
from expunge.models.matrices import WeightMatrix, plain_weights, share_of_blocks
from expunge.models.merging import merged_names
from expunge.models.weight_backup import WeightBackup, weight_backup

ChangeWeight = Callable[[str, Tensor], Tensor | None]
"""(name, weight) -> its replacement, a new tensor of the same shape; None keeps the weight."""


@contextmanager
def changed_weights(model: LanguageModel, change: ChangeWeight, kept: WeightBackup | None = None) -> Iterator[float]:
    """Replace weights by `change` of them within this block of code.

    They are changed one after another in their own place, and put back from a copy, also after an error. An adapter is
    merged first, since that is what would be published; names are those of the plain network.

    Args:
        model: any model.
        change: called once for each weight.
        kept: copies from earlier changes of the same model. Default: new copies.

    Yields:
        The share of the weights of the decoder blocks that `change` replaced.

    Raises:
        UserError: the weights are quantized, and so packed into numbers that mean something else.
        DiskError: there is no room for the copies.
        ModelLost: they cannot be put back.
    """
    if getattr(model.base, "is_quantized", False):
        raise UserError(f"model: the weights of '{model.source}' are quantized already and cannot be changed")
    adapted = hasattr(model.network, "peft_config")
    weights = dict(plain_weights(model))
    dtypes = {name: weight.dtype for name, weight in weights.items()}
    kept = kept or weight_backup(model.base)
    moved: set[str] = set()
    replaced = []
    try:
        if adapted:
            moved = merged_names(model.network) & weights.keys()
            for name in moved:
                kept.keep(name, weights[name])
            model.network.merge_adapter()
        with torch.no_grad():
            seen: set[int] = set()
            for name, weight in weights.items():
                place = weight.data_ptr()  # 0 where a tensor has no memory of its own
                if place and place in seen:  # tied by its memory to one that was changed
                    continue
                seen.add(place)
                found = change(name, weight.data)
                if found is not None:
                    kept.keep(name, weight)
                    moved.add(name)
                    weight.data.copy_(found)
                    replaced.append(name)
        yield share_of_blocks(model, replaced)
    finally:
        if adapted:
            model.network.unmerge_adapter()
        for name in moved:
            kept.put_back(name, weights[name], dtypes[name])


def each_matrix(matrix: WeightMatrix, weight: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A weight with `change` applied to each of its matrices separately.

    Args:
        matrix: what the weight holds.
        weight: of its shape.
        change: (out, in) -> (out, in).
    """
    return matrix.together(torch.stack([change(one) for one in matrix.apart(weight)]))
