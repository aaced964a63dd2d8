"""Fixtures of the train tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from short_run import Unlearning

from expunge.data.example import Example
from expunge.models.config import ModelConfig
from expunge.models.load import load_model


@pytest.fixture
def unlearning(
    tiny_folder: Path, examples: dict[str, tuple[Example, ...]], tmp_path: Path
) -> Callable[..., Unlearning]:
    """Builds a run; each call starts from the taught model, in its own folder unless one is given."""
    made = iter(range(100))

    def build(**options: Any) -> Unlearning:
        folder = options.pop("folder", tmp_path / f"run{next(made)}")
        return Unlearning(load_model(ModelConfig(name=str(tiny_folder))), examples, folder, **options)

    return build
