"""Shared by the benchmarks: the model, batches of a given shape, paired timing, a table."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Literal

import torch

from expunge.cli._console import quiet_libraries
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

MODEL = "smollm2-135m"


def model(name: str = MODEL, precision: Literal["auto", "float32", "bfloat16"] = "auto") -> LanguageModel:
    """The embedded model, all weights trainable."""
    quiet_libraries()
    loaded = load_model(ModelConfig(name=name, precision=precision))
    loaded.freeze_but([parameter for parameter, _ in loaded.network.named_parameters()])
    return loaded


def rows(count: int, prompt: int, answer: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Random rows of one shape: timing does not depend on what the tokens are."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (count, prompt + answer), generator=generator).tolist()
    return [Encoded(tuple(row), prompt) for row in ids]


def paired_seconds(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Time two things in turn, A B A B ..., after one warm-up of each."""
    first()
    second()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for work, kept in zip((first, second), times, strict=True):
            start = time.perf_counter()
            work()
            kept.append(time.perf_counter() - start)
    return times


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median over the pairs of first / second."""
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


def report(title: str, **figures: float | str) -> None:
    """One line for a person, and the same as JSON."""
    shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    print(json.dumps({"benchmark": title, **shown}))
