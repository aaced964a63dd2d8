"""A model that is steered by hand: one block's output is pushed along a known direction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.diagnose.base import DiagnosticContext
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

Rows = dict[str, tuple[Example, ...]]
LAYER = 1


def load(folder: Path) -> LanguageModel:
    return load_model(ModelConfig(name=str(folder), precision="float32"))


def steered(folder: Path, push: Tensor) -> LanguageModel:
    """Adds a vector to every token's output of block 1."""
    model = load(folder)
    block: Any = model.blocks()[LAYER][1]
    block.mlp.down_proj.bias = torch.nn.Parameter(push.clone())
    return model


def context(folder: Path, rows: Rows, push: Tensor | None = None, **options: Any) -> DiagnosticContext:
    """The taught tiny model, and where a push is given the one that is steered by it."""
    loaders: dict[Any, Callable[[], LanguageModel]] = {"original": lambda: load(folder)}
    if push is not None:
        loaders["unlearned"] = lambda: steered(folder, push)
        options.setdefault("tensors", {"direction": push / push.norm()})
        options.setdefault("steered", LAYER)
    return DiagnosticContext(loaders, Splits(rows["forget"], rows["retain"]), **options)


def direction(width: int = 96) -> Tensor:
    """A unit vector."""
    vector = torch.rand(width, generator=torch.Generator().manual_seed(3))
    return vector / vector.norm()
