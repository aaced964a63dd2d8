"""A model is asked the same once; what is kept is read back to the last bit, by its owner."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.data.example import Example
from expunge.evaluate import evidence
from expunge.evaluate.asking import Ask
from expunge.evaluate.base import EvaluateConfig, Need
from expunge.evaluate.evidence import collect_sets
from expunge.evaluate.memory import EvidenceMemory
from expunge.models.base import LanguageModel

NEEDS: frozenset[Need] = frozenset({"answer", "perturbed_answer", "moments", "greedy", "samples"})
CONFIG = EvaluateConfig(samples=2, max_new_tokens=6)


@pytest.fixture
def asks(examples: dict[str, tuple[Example, ...]]) -> dict[str, Ask]:
    """Two questions and a document."""
    document = Example("document", text=" ".join(row.answer or "" for row in examples["retain"][:3]))
    return {
        "facts": Ask(examples["forget"][:2], "forget", NEEDS, CONFIG),
        "texts": Ask([document], "general", NEEDS, CONFIG),
    }


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Requests that reached a model."""
    asked = []
    real = evidence.ask_batch

    def counted(model: Any, batch: Any, budget: int) -> Any:
        asked.append(len(batch))
        return real(model, batch, budget)

    monkeypatch.setattr(evidence, "ask_batch", counted)
    return lambda: sum(asked)


def test_a_second_pass_asks_nothing_and_finds_the_same(
    tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path, count: Callable[[], int]
) -> None:
    first = collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path / "kept"))
    assert count() == 3
    again = collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path / "kept"))
    assert count() == 3
    assert again == first
    assert first["texts"][0].continuation


def test_another_seed_question_or_model_is_asked_anew(
    tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path, count: Callable[[], int]
) -> None:
    """Two forget rows are sampled by the seed, the document is not; then one row is another; then a weight."""
    facts, texts = asks["facts"], asks["texts"]
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    collect_sets(tiny, asks, 1, memory=EvidenceMemory(tiny, tmp_path))
    assert count() == 3 + 2
    other = Ask([facts.rows[0], texts.rows[0]], "forget", facts.needs, facts.config)
    collect_sets(tiny, {"facts": other}, 0, memory=EvidenceMemory(tiny, tmp_path))
    assert count() == 5 + 2
    with torch.no_grad():
        next(tiny.base.parameters())[0, 0] += 1
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    assert count() == 7 + 3


def test_a_stopped_pass_goes_on_where_it_was(
    tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path, count: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of one row: the second round is stopped; the next pass asks for what the first had not kept."""
    monkeypatch.setattr(evidence, "_UNIT", 1)
    monkeypatch.setattr(evidence, "_ROUND", 1)
    counted = evidence.ask_batch

    def stop(model: Any, batch: Any, budget: int) -> Any:
        if count() == 1:
            raise KeyboardInterrupt
        return counted(model, batch, budget)

    with monkeypatch.context() as patch:
        patch.setattr(evidence, "ask_batch", stop)
        with pytest.raises(KeyboardInterrupt):
            collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    found = collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    assert count() == 1 + 2
    assert found == collect_sets(tiny, asks, 0)


def test_only_its_owner_reads_it(tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path) -> None:
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path / "kept"))
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
