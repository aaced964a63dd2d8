"""Fixtures of the model tests: small random models beside the taught one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from random_models import ARCHITECTURES, random_network
from transformers import PreTrainedTokenizerBase

from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import wrap_model


@pytest.fixture
def wrap(tokenizer: PreTrainedTokenizerBase) -> Callable[[Any], LanguageModel]:
    """A `LanguageModel` around a network; its tokenizer is not its own, so tests give it ids."""
    return lambda network: wrap_model(network, tokenizer, ModelConfig(name="random", precision="float32"))


@pytest.fixture(params=ARCHITECTURES)
def random_model(request: pytest.FixtureRequest, wrap: Callable[[Any], LanguageModel]) -> LanguageModel:
    """One small random model of each architecture."""
    return wrap(random_network(request.param, **ARCHITECTURES[request.param]))
