"""Every shipped suite, end to end: tiny folders of the published layout, a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from published import LAYOUTS, write

from expunge.core.catalog import SUITES
from expunge.core.errors import UserError
from expunge.core.toml import read_toml
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.measure import Measured, Reference, measure
from expunge.evaluate.score import load_metrics
from expunge.evaluate.suite import Suite, load_suite, suite_names
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

VARIANTS = [
    f"{name}{variant}"
    for name in suite_names()
    for variant in ("", *(f":{one}" for one in read_toml(SUITES / f"{name}.toml").get("variants", ())))
]


def _own(folder: Path, facts: dict[str, list[dict[str, Any]]]) -> Path:
    parts = {"forget": "forget", "retain": "retain", "neighbour": "neighbour", "general": "retain"}
    for name, part in parts.items():
        write(folder / f"{name}.jsonl", facts[part])
    write(folder / "holdout.jsonl", [{"question": row["question"], "answer": row["answer"]} for row in facts["retain"]])
    return folder


@pytest.fixture(scope="module")
def folders(facts: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for every suite; that of WMDP also holds MMLU."""
    made = {name: lay_out(tmp_path_factory.mktemp(name), facts) for name, lay_out in LAYOUTS.items()}
    LAYOUTS["mmlu"](made["wmdp"], facts)
    made |= dict.fromkeys(("muse_news", "muse_books"), made["muse"])
    return {**made, "own": _own(tmp_path_factory.mktemp("own"), facts)}


def _suite(name: str, folders: dict[str, Path], **evaluate: Any) -> Suite:
    quick = {"max_new_tokens": 4, "samples": 0, "cache": False, **evaluate}
    suite = load_suite(name, str(folders[name.partition(":")[0]]), {"evaluate": quick})
    sets = {key: one.model_copy(update={"max_new_tokens": None}) for key, one in suite.sets.items()}
    return suite.model_copy(update={"sets": sets})


def _measured(suite: Suite, model: Path, **beside: Any) -> Measured:
    loaded = load_model(ModelConfig(name=str(model), **{"overflow": "truncate", **suite.model}))
    metrics, labeller = load_metrics(suite.evaluate), Labeller(suite.evaluate.kinds)
    return measure(loaded, suite.rows(), metrics, labeller, suite.evaluate, 0, **beside)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_suite_runs(name: str, folders: dict[str, Path], tiny_folder: Path) -> None:
    """Each set has a number for each of its metrics, but for what needs a judge, a holdout or a reference."""
    suite = _suite(name, folders)
    found = _measured(suite, tiny_folder)
    assert list(found.evidence) == list(suite.sets)
    missing = {
        f"{part}/{metric}": score.reason
        for part in suite.sets
        for metric, score in found.scores[part].items()
        if score.value is None
    }
    if name.startswith("own"):
        assert found.scores["forget"]["probability"].value is not None
        assert "rows without options" in missing["forget/choice_accuracy"]
        return
    allowed = ("gibberish", "forget_quality", "priv", "relative_difference", "mia_reference")
    assert not [entry for entry in missing if not any(part in entry.rpartition("/")[2] for part in allowed)]


def test_reference_gives_forget_quality_and_privacy_leak(folders: dict[str, Path], tiny_folder: Path) -> None:
    """Against itself the model is private, and its truth ratios are of one distribution."""
    suite = _suite("tofu:forget05", folders)
    reference = _measured(suite, tiny_folder, is_reference=True)
    compared = Reference(reference.set_values, reference.evidence)
    scores = _measured(suite, tiny_folder, reference=compared).scores["forget"]
    assert scores["forget_quality"].value == 1
    assert scores["privleak"].value == 0
    assert scores["mia_min_k_auc"].n == 8 + 8


def test_only_compared_sets_are_read_by_set_metrics(folders: dict[str, Path], tiny_folder: Path) -> None:
    """MUSE tells members by its privleak texts, not by the questions about the same articles."""
    suite = _suite("muse_news", folders)
    found = _measured(suite, tiny_folder)
    assert set(found.read_roles) == {"knowmem_retain", "privleak", "privleak_holdout"}
    assert len(found.set_values["forget"]["mia_min_k"].numbers) == 8
    assert found.scores["privleak"]["mia_min_k_auc"].n == 8 + 8
    assert set(found.scores["verbmem"]) == set(found.scores["knowmem_forget"]) == {"rouge_l_f1"}


def test_whole_documents_are_scored(folders: dict[str, Path], tiny_folder: Path) -> None:
    """All tokens but the first, for the tiny tokenizer has no beginning token; the usual prompt is a quarter."""
    suite = _suite("muse_news", folders)
    item = _measured(suite, tiny_folder).evidence["privleak"][0]
    encoder = load_model(ModelConfig(name=str(tiny_folder))).encoder
    length = len(encoder.document(item.example.text or "").ids)
    assert item.answer is not None
    assert len(item.answer.logp) == length - 1


def test_topics_are_scored_by_themselves(folders: dict[str, Path], tiny_folder: Path) -> None:
    """Two subjects of eight rows each: their accuracies average to that of all."""
    found = _measured(_suite("mmlu", folders), tiny_folder)
    whole, *parts = (found.scores[name]["choice_accuracy"] for name in ("mmlu", *TOPICS))
    assert [part.n for part in parts] == [8, 8]
    assert whole.value == pytest.approx(sum(part.value or 0 for part in parts) / 2)
    assert {found.roles[name] for name in TOPICS} == {"general"}
    assert "mmlu: world_history" not in found.values


TOPICS = ("mmlu: abstract_algebra", "mmlu: world_history")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('metrics = ["probabilty"]', "no 'probabilty'; did you mean probability"),
        ("document_prompt = 1", "document_prompt"),
        ("by_topics = true", "unknown key 'sets.forget.by_topics'"),
        ('role = "forgotten"', "role"),
    ],
)
def test_bad_suites(tmp_path: Path, text: str, message: str) -> None:
    role = "" if text.startswith("role") else 'role = "forget"\n'
    path = tmp_path / "bad.toml"
    path.write_text(f'[sets.forget]\ndata = "people:forget"\n{role}{text}\n', encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_suite(str(path))
