"""The same model through lm-eval, here a stand-in that answers in the harness's own form."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from expunge.api import measure
from expunge.cli.main import app
from expunge.core.errors import UserError
from expunge.evaluate import harness
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.harness import check_tasks, harness_scores
from expunge.models.base import LanguageModel
from expunge.workflows.evaluate import data_plan, evaluate_models

TASKS = ("wmdp_bio", "wmdp_cyber", "wmdp", "gsm8k")
RESULTS: dict[str, Any] = {
    "results": {
        "wmdp_bio": {"alias": "bio", "acc,none": 0.5, "acc_stderr,none": 0.05, "acc_norm,none": 0.4},
        "gsm8k": {"exact_match,strict-match": 0.2, "exact_match_stderr,strict-match": "N/A", "sample_len": 7},
    },
    "groups": {"wmdp": {"acc,none": 0.45, "acc_stderr,none": 0.1}},
    "group_subtasks": {"wmdp": ["wmdp_bio", "wmdp_cyber"], "wmdp_bio": []},
    "n-samples": {"wmdp_bio": {"original": 1273, "effective": 100}, "wmdp_cyber": {"original": 9, "effective": 9}},
}


class Manager:
    all_tasks = TASKS

    def match_tasks(self, names: list[str]) -> list[str]:
        return [name for name in names if name in TASKS]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the stand-in was asked."""
    found: list[dict[str, Any]] = []
    names = ("lm_eval", "lm_eval.tasks", "lm_eval.models", "lm_eval.models.huggingface")
    modules = {name: ModuleType(name) for name in names}
    modules["lm_eval"].__spec__ = ModuleSpec("lm_eval", None)
    modules["lm_eval.tasks"].TaskManager = Manager  # type: ignore[attr-defined]
    modules["lm_eval.models.huggingface"].HFLM = dict  # type: ignore[attr-defined]

    def simple_evaluate(**asked: Any) -> dict[str, Any] | None:
        found.append({**asked, "training": asked["model"]["pretrained"].training})
        return RESULTS

    modules["lm_eval"].simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_results_become_scores(tiny: LanguageModel, calls: list[dict[str, Any]]) -> None:
    """0.5 with a standard error of 0.05: 0.5 -+ 0.098; no interval without one; groups beside their tasks."""
    tiny.network.train()
    scores = harness_scores(tiny, ["wmdp_bio", "wmdp"], 3)
    assert list(scores) == ["lm-eval: wmdp_bio", "lm-eval: gsm8k", "lm-eval: wmdp"]
    assert list(scores["lm-eval: wmdp_bio"]) == ["acc", "acc_norm"]
    acc = scores["lm-eval: wmdp_bio"]["acc"]
    assert (acc.value, acc.low, acc.high, acc.n) == (0.5, pytest.approx(0.402), pytest.approx(0.598), 100)
    assert scores["lm-eval: wmdp_bio"]["acc_norm"].low is None
    assert scores["lm-eval: wmdp"]["acc"].n == 109
    strict = scores["lm-eval: gsm8k"]["exact_match_strict-match"]
    assert (strict.value, strict.low, strict.n) == (0.2, None, 7)
    (call,) = calls
    assert call["tasks"] == ["wmdp_bio", "wmdp"]
    assert call["fewshot_random_seed"] == 3
    assert call["model"]["pretrained"] is tiny.network
    assert not call["training"]
    assert tiny.network.training


def test_what_is_refused(calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    check_tasks([])
    check_tasks(TASKS)
    with pytest.raises(UserError, match="there is no task 'wmdp_boi'; did you mean wmdp_bio"):
        check_tasks(["wmdp", "wmdp_boi"])
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'expunge\[lm-eval\]'"):
        check_tasks(["wmdp"])
    assert not calls


def test_data_that_cannot_be_loaded(
    tiny: LanguageModel, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**_: Any) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", unreachable)
    with pytest.raises(UserError, match=r"cannot load the data of wmdp: no network$"):
        harness_scores(tiny, ["wmdp"], 0)


def test_other_processes_have_no_results(
    tiny: LanguageModel, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["lm_eval"], "simple_evaluate", lambda **_: None)
    assert harness_scores(tiny, ["wmdp"], 0) == {}


def test_command(tiny_folder: Path, fact_files: dict[str, Path], calls: list[dict[str, Any]]) -> None:
    """Tasks alone measure nothing else; with data they stand beside it."""
    alone = CliRunner().invoke(app, ["eval", str(tiny_folder), "--lm-eval", "wmdp_bio, wmdp", "--json"])
    assert alone.exit_code == 0, alone.output
    assert list(json.loads(alone.stdout)["scores"]) == ["lm-eval: wmdp_bio", "lm-eval: gsm8k", "lm-eval: wmdp"]
    plan = data_plan({"forget": str(fact_files["forget"])}, EvaluateConfig(metrics=("probability",), cache=False))
    (both,) = evaluate_models([str(tiny_folder)], plan, lm_eval=["wmdp"])
    assert {"forget", "lm-eval: wmdp"} <= set(both.record.scores)
    assert "lm-eval: wmdp" not in measure(str(tiny_folder), {"forget": str(fact_files["forget"])}).scores
