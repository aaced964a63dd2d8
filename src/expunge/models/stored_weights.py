"""Weights read one at a time from the folder of a model that is not loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.adapter_folder import is_adapter
from expunge.models.base import LanguageModel
from expunge.models.checkpoint import FLOATS, entries, match
from expunge.models.config import ModelConfig
from expunge.models.matrices import plain_weights
from expunge.models.pull import embedded, pull
from expunge.models.source import resolve, weight_files


class StoredWeights:
    """Weights by their names in a network.

    Args:
        places: file, and name in it, of each weight.
    """

    def __init__(self, places: Mapping[str, tuple[Path, str]]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Tensor:
        """A weight on the CPU, in its stored dtype."""
        file, stored = self._places[name]
        with safe_open(file, "pt") as tensors:
            found: Tensor = tensors.get_tensor(stored)
            return found


def stored_weights(config: ModelConfig, like: LanguageModel) -> StoredWeights | None:
    """The weights of a model that has the shape of another one.

    Args:
        config: names it.
        like: a loaded model.

    Returns:
        None where the folder does not hold these weights as they are in memory, e.g. an adapter, a GGUF file, quantized
        weights, or experts that are stacked when they are loaded: then the model must be loaded.
    """
    path = Path(config.name)
    if path.is_file() or like.is_adapted:
        return None
    try:
        folder = pull(config.name) if config.name in embedded() else resolve(config.name, config.revision)
        files = [] if is_adapter(folder) else weight_files(folder)
    except (OSError, ValueError, UserError):  # loading says what is wrong
        return None
    live = match(files, like.base)
    if live is None:
        return None
    memory = {tensor.data_ptr(): name for name, tensor in live.items()}
    places = {}
    for file in files:
        for name, (shape, code) in entries(file).items():
            if name in live and code in FLOATS:
                places[name] = file, shape
    found = {}
    for name, weight in plain_weights(like):
        stored = memory.get(weight.data_ptr() or -1)  # what is turned or put together when it is loaded lies elsewhere
        if stored not in places or places[stored][1] != tuple(weight.shape):
            return None
        found[name] = places[stored][0], stored
    return StoredWeights(found)
