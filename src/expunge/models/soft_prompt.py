"""Token ids that stand for vectors: soft prompts, and a gradient for every token that could stand in a place."""

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
    """Within this block of code the id `-1 - k` means vector `k`, wherever token ids are read.

    So whatever works on ids (batches, kept prefixes, generation) works on soft prompts; gradients reach the vectors.

    Args:
        model: any model.
        vectors: (K, D) in the place of what the embedding of a token gives.
    """
    base: Any = model.base
    module: nn.Module = base.get_input_embeddings()
    asked: list[Tensor] = []

    def hide(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        asked.append(arguments[0])
        return (arguments[0].clamp(min=0), *arguments[1:])

    def put(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        ids = asked.pop()
        soft = ids < 0
        given = vectors.to(output)[(-1 - ids).clamp(min=0)]
        return torch.where(soft[..., None], given, output)

    with module.register_forward_pre_hook(hide), module.register_forward_hook(put):
        yield
