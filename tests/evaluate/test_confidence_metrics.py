"""Metrics of confidence: by hand, and against a plain forward of the tiny model."""

from __future__ import annotations

import math

import pytest
import torch

from expunge.core import plugins
from expunge.data.example import Example
from expunge.evaluate.base import Item, Metric
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect
from expunge.evaluate.score import FOLDER
from expunge.models.base import LanguageModel
from expunge.models.generate import Scored

NAMES = ("max_logit", "max_probability", "next_token_entropy")


def value(name: str, item: Item) -> float:
    kind = plugins.find(FOLDER, name, Metric)  # type: ignore[type-abstract]
    return kind(kind.Config()).value(item, "forget")


def test_means_over_positions() -> None:
    """Probabilities 0.5 and 0.25 have mean 0.375, 7 and 4 have 5.5; expected log-probabilities -1, -2: 1.5 nats."""
    answer = Scored((-3.0, -3.0), (False, False), (-1.0, -2.0), (0.0, 0.0), (7.0, 4.0), (math.log(0.5), math.log(0.25)))
    item = Item(Example("a", "Q", "A"), answer=answer)
    assert [value(name, item) for name in NAMES] == pytest.approx([5.5, 0.375, 1.5])


def test_they_are_those_of_a_plain_forward(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    rows = examples["forget"][:3]
    found = collect(tiny, {"forget": rows}, frozenset({"answer", "moments"}), EvaluateConfig(), 0)["forget"]
    for row, item in zip(rows, found, strict=True):
        encoded = tiny.encoder.example(row)
        with torch.no_grad():
            logits = tiny.base(torch.tensor([encoded.ids])).logits[0, encoded.num_prompt - 1 : -1]
        distribution = torch.distributions.Categorical(logits=logits)
        expected = [logits.amax(-1), distribution.probs.amax(-1), distribution.entropy()]
        assert [value(name, item) for name in NAMES] == pytest.approx(
            [float(one.mean()) for one in expected], rel=1e-3, abs=1e-5
        )
