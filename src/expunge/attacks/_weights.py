"""Changing a model's weights without changing the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from expunge.models.base import LanguageModel


@contextmanager
def on_copy(model: LanguageModel) -> Iterator[Any]:
    """Within this block of code the model is a copy of itself that may be changed in any way; gives its network.

    An adapter is merged in the copy, since that is what would be published. Afterwards the model is the very network
    that it was before.
    """
    kept = model.network
    network = copy.deepcopy(kept)
    model.network = network.merge_and_unload() if hasattr(network, "peft_config") else network
    try:
        yield model.network
    finally:
        model.network = kept
