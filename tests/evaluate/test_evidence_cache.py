"""A model is asked the same once; what is kept is read back to the last bit, by its owner."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.progress import Progress
from expunge.data.example import Example
from expunge.evaluate import evidence
from expunge.evaluate.base import Need
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect_sets
from expunge.evaluate.evidence_cache import EvidenceMemory
from expunge.evaluate.evidence_plan import Ask
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


def test_a_damaged_entry_is_dropped_and_asked_again(
    tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path, count: Callable[[], int]
) -> None:
    """Cut, empty, of NULs, one row short, with another answer, or in the place of another: never believed."""
    facts = {"facts": asks["facts"]}
    first = collect_sets(tiny, facts, 0, memory=EvidenceMemory(tiny, tmp_path))
    (path,) = tmp_path.glob("*.json")
    whole = path.read_bytes()
    assert b'"greedy"' in whole
    rows = json.loads(whole.partition(b"\n")[2])
    damages = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "NULs": b"\0" * len(whole),
        "one row short": json.dumps(rows[:1]).encode(),
        "another answer": whole.replace(rows[0]["greedy"].encode(), b"I do not know."),
        "of an older version": json.dumps(rows).encode(),
        "not text": b"\xff\xfe" + whole,
    }
    asked = count()
    for name, damage in damages.items():
        path.write_bytes(damage)
        assert collect_sets(tiny, facts, 0, memory=EvidenceMemory(tiny, tmp_path)) == first, name
        assert count() == asked + 2, name
        assert json.loads(path.read_bytes().partition(b"\n")[2]) == rows, name
        asked = count()
    collect_sets(tiny, facts, 1, memory=EvidenceMemory(tiny, tmp_path))
    (other,) = set(tmp_path.glob("*.json")) - {path}
    path.write_bytes(other.read_bytes())
    assert collect_sets(tiny, facts, 0, memory=EvidenceMemory(tiny, tmp_path)) == first, "another entry's content"
    assert count() == asked + 4
    assert collect_sets(tiny, facts, 0, memory=EvidenceMemory(tiny, tmp_path)) == first
    assert count() == asked + 4


@pytest.mark.parametrize("place", ["file/evidence", "nowhere", "occupied"])
def test_without_a_folder_it_goes_on_and_says_so_once(
    tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path, place: str
) -> None:
    """A file in the way, a dangling link, and a folder where entries cannot be written."""
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "occupied" / "key").mkdir(parents=True)
    lines: list[str] = []
    progress = Progress()
    progress.say = lines.append  # type: ignore[method-assign]
    memory = EvidenceMemory(tiny, tmp_path / place, progress)
    first = collect_sets(tiny, {"facts": asks["facts"]}, 0, memory=memory)
    again = EvidenceMemory(tiny, tmp_path / place, progress)
    assert collect_sets(tiny, {"facts": asks["facts"]}, 0, memory=again) == first
    assert len(lines) == 1
    assert lines[0].startswith("answers are not cached")


def test_a_folder_that_was_open_to_others_is_closed(tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir(mode=0o755)
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path / "kept"))
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "kept").iterdir()} == {0o600}


def test_the_same_weights_in_another_configuration_are_asked_again(
    tiny: LanguageModel, asks: dict[str, Ask], tmp_path: Path, count: Callable[[], int], monkeypatch: Any
) -> None:
    """A shorter sliding window, or another scale of positions, changes answers without changing a weight."""
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    monkeypatch.setattr(tiny.base.config, "_name_or_path", "moved")
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    assert count() == 3
    monkeypatch.setattr(tiny.base.config, "rms_norm_eps", 0.1)
    collect_sets(tiny, asks, 0, memory=EvidenceMemory(tiny, tmp_path))
    assert count() == 6
