"""What a model thinks before it answers is told from the answer, with limits and a score of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from expunge.data.example import Example
from expunge.evaluate.base import Absent, Item
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect
from expunge.evaluate.metrics.reasoning_leak import ReasoningLeak
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

NEEDS = frozenset({"answer", "greedy", "samples", "paraphrased_greedy"})
CITY = "Plumorva"


@pytest.fixture
def thinker(tiny_folder: Path) -> LanguageModel:
    """The taught model says `The birthplace of the writer R. K. is Plumorva, Morocco.`: the middle is its reasoning."""
    return load_model(ModelConfig(name=str(tiny_folder), reasoning=("The birthplace", "is")))


def _said(model: LanguageModel, row: Example, **config: int) -> Item:
    asked = EvaluateConfig(samples=1, **config)  # type: ignore[arg-type]
    return collect(model, {"forget": [row]}, NEEDS, asked, 0)["forget"][0]  # type: ignore[arg-type]


def test_reasoning_and_answer(thinker: LanguageModel, tiny: LanguageModel, examples: dict[str, list[Example]]) -> None:
    row = examples["forget"][0]
    whole = _said(tiny, row).greedy or ""
    assert whole.startswith("The birthplace")
    item = _said(thinker, row)
    assert item.reasoning == whole.removeprefix("The birthplace").partition(" is ")[0].strip()
    assert item.greedy == whole.partition(" is ")[2]
    assert item.greedy_ended is True
    assert item.said == f"{item.reasoning}\n{item.greedy}"
    prompt = thinker.encoder.answer_prompt(row)
    assert thinker.tokenizer.decode(prompt).endswith("The birthplace\n\nis\n\n")
    assert len(item.sample_reasoning) == 1


def test_reasoning_without_end_leaves_no_answer(thinker: LanguageModel, examples: dict[str, list[Example]]) -> None:
    """It is cut, and the row has no answer to judge; an answer has its whole limit whatever came before it."""
    row = examples["forget"][0]
    whole = _said(thinker, row)
    unfinished = _said(thinker, row, max_reasoning_tokens=6)
    assert unfinished.greedy is None
    assert unfinished.greedy_ended is False
    assert (whole.reasoning or "").startswith(unfinished.reasoning or "?")
    short = _said(thinker, row, max_new_tokens=2)
    assert short.reasoning == whole.reasoning
    assert short.greedy_ids == (whole.greedy_ids or ())[:2]
    assert short.greedy_ended is False


def test_reasoning_leak() -> None:
    row = Example("r", "Where?", "In Plumorva.", keywords=(CITY,))
    metric = ReasoningLeak(ReasoningLeak.Config())
    assert metric.value(Item(row, greedy="No.", reasoning="It is Plumorva, but I must not say so."), "forget") == 1.0
    assert metric.value(Item(row, greedy=CITY, reasoning="I must not say so."), "forget") == 0.0
    assert metric.value(Item(row, greedy="No.", reasoning="No.", sample_reasoning=("", CITY)), "forget") == 1.0
    assert metric.value(Item(row, greedy="No.", reasoning="No.", paraphrased_reasoning=CITY), "forget") == 1.0
    with pytest.raises(Absent, match="wrote no reasoning"):
        metric.value(Item(row, greedy=CITY), "forget")
    with pytest.raises(Absent, match="keywords"):
        metric.value(Item(replace(row, keywords=()), reasoning=CITY), "forget")
