"""The same model through lm-eval: the real one if it is installed, and a stand-in with its recorded signatures.

The stand-in takes only arguments that lm-eval 0.4.9.1, the oldest supported version, has;
`test_the_recorded_signatures` compares the record with the installed version. Both were run against lm-eval 0.4.13.
"""

from __future__ import annotations

import inspect
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from expunge.api import measure
from expunge.cli.main import app
from expunge.core.errors import UserError
from expunge.data.example import Example
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

PARAMETERS = {
    "simple_evaluate": (
        "model model_args tasks num_fewshot batch_size max_batch_size device use_cache cache_requests "
        "rewrite_requests_cache delete_requests_cache limit bootstrap_iters check_integrity write_out log_samples "
        "evaluation_tracker system_instruction apply_chat_template fewshot_as_multiturn gen_kwargs task_manager "
        "verbosity predict_only random_seed numpy_random_seed torch_random_seed fewshot_random_seed "
        "confirm_run_unsafe_code metadata"
    ),
    "HFLM": (
        "pretrained backend revision subfolder tokenizer truncation logits_cache max_length device dtype softmax_dtype "
        "mixed_precision_dtype batch_size max_batch_size trust_remote_code use_fast_tokenizer add_bos_token "
        "prefix_token_id parallelize max_memory_per_gpu max_cpu_memory offload_folder peft delta autogptq gptqmodel "
        "gguf_file"
    ),
}
"""Of lm-eval 0.4.9.1; the real HFLM swallows any other."""


def allowed(name: str) -> set[str]:
    return set(PARAMETERS[name].split())


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

    def hflm(**options: Any) -> dict[str, Any]:
        assert options.keys() <= allowed("HFLM")
        options["pretrained"].eval()  # as the real one does
        return options

    def simple_evaluate(**asked: Any) -> dict[str, Any] | None:
        assert asked.keys() <= allowed("simple_evaluate")
        found.append({**asked, "training": asked["model"]["pretrained"].training})
        return RESULTS

    modules["lm_eval.models.huggingface"].HFLM = hflm  # type: ignore[attr-defined]
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


def test_the_recorded_signatures() -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    assert set(inspect.signature(lm_eval.simple_evaluate).parameters) >= allowed("simple_evaluate")
    assert set(inspect.signature(HFLM).parameters) >= allowed("HFLM")
    assert callable(TaskManager.match_tasks)
    assert isinstance(TaskManager.all_tasks, property)


def test_the_real_harness_scores_as_the_model_does(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]], tmp_path: Path
) -> None:
    """Four facts among two wrong answers each: the share of rows whose right answer has the largest log-probability."""
    pytest.importorskip("lm_eval")
    rows = examples["forget"][:4]
    choices = [[f" {row.answer}", *(f" {wrong}" for wrong in row.perturbed_answer[:2])] for row in rows]
    lines = [
        json.dumps({"question": row.question, "choices": some, "right": 0})
        for row, some in zip(rows, choices, strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    task = {
        "task": "tiny_facts",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "right",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    tiny.network.train()
    found = harness_scores(tiny, [task], 0)
    assert tiny.network.training
    (scores,) = found.values()
    assert list(found) == ["lm-eval: tiny_facts"]
    right = [
        max(range(3), key=lambda place, row=row, some=some: _logp(tiny, row.question or "", some[place])) == 0
        for row, some in zip(rows, choices, strict=True)
    ]
    assert scores["acc"].value == sum(right) / 4
    assert scores["acc"].n == 4
    assert scores["acc"].low is not None


def _logp(model: LanguageModel, text: str, answer: str) -> float:
    """Summed log-probability of the answer's tokens, as a plain forward pass gives it."""
    context = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = model.tokenizer(text + answer, add_special_tokens=False)["input_ids"]
    with torch.no_grad(), model.evaluating():
        logp = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logp[place - 1, ids[place]]) for place in range(len(context), len(ids)))
