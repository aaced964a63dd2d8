"""A model whose weights are others for a while, and afterwards what they were, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.models.base import LanguageModel

Change = Callable[[str, Tensor], Tensor | None]
"""(name, weight) -> the weight that stands in its place, a new tensor of the same shape; None leaves it."""


@contextmanager
def changed_weights(model: LanguageModel, change: Change) -> Iterator[None]:
    """Within this block of code the weights are what `change` makes of them.

    The old tensors wait untouched and are put back, also after an error. An adapter is merged first, since that is what
    would be published; names are those of the plain network.

    Args:
        model: any model.
        change: asked once for each weight.
    """
    adapted = hasattr(model.network, "peft_config")
    weights = dict(plain_weights(model))
    kept = {name: weight.data for name, weight in weights.items()}
    try:
        if adapted:
            for weight in weights.values():
                weight.data = weight.data.clone()
            model.network.merge_adapter()
        with torch.no_grad():
            for name, weight in weights.items():
                found = change(name, weight.data)
                if found is not None:
                    weight.data = found.to(weight.data)
        yield
    finally:
        if adapted:
            model.network.unmerge_adapter()
        for name, weight in weights.items():
            weight.data = kept[name]


def plain_weights(model: LanguageModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and weight of every parameter of the transformers model, without an adapter's own; tied ones once."""
    for name, weight in model.base.named_parameters():
        if ".lora_" not in name:
            yield name.replace(".base_layer", ""), weight


def block_matrices(model: LanguageModel) -> frozenset[str]:
    """Names of the weight matrices of the decoder blocks."""
    prefixes = tuple(f"{prefix}." for prefix, _ in model.blocks())
    return frozenset(name for name, weight in plain_weights(model) if weight.dim() == 2 and name.startswith(prefixes))
