"""Soft prompts: negative token ids that are embedded as given vectors, with gradients for these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.models.base import LanguageModel


def soft_ids(count: int) -> tuple[int, ...]:
    """Ids of the first `count` vectors: -1, -2, ..."""
    return tuple(range(-1, -count - 1, -1))


@contextmanager
def softened(model: LanguageModel, vectors: Tensor) -> Iterator[None]:
    """Embed the id `-1 - k` as vector `k` within this block of code.

    So everything that takes ids (batches, kept prefixes, generation) takes soft prompts; gradients reach the vectors.

    Args:
        model: any model.
        vectors: (K, D) used instead of token embeddings.
    """
    base: Any = model.base
    module: nn.Module = base.get_input_embeddings()
    embedded: list[Tensor] = []

    def hide(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        embedded.append(arguments[0])
        return (arguments[0].clamp(min=0), *arguments[1:])

    def put(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        ids = embedded.pop()
        soft = ids < 0
        given = vectors.to(output)[(-1 - ids).clamp(min=0)]
        return torch.where(soft[..., None], given, output)

    with module.register_forward_pre_hook(hide), module.register_forward_hook(put):
        yield
