"""`expunge run` on the tiny model: what it leaves behind, what it prints, and what it never shows."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

from expunge.core.records import read_record

METRICS = {"probability", "keyword_recall", "paraphrase_keyword_recall", "sample_leak", "truth_ratio", "rouge_l_recall"}


def test_run_leaves_its_directory_complete(finished: Any) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"run.toml", "record.json", "items.parquet", "model", "report.html"} <= names
    assert names <= {"run.toml", "record.json", "items.parquet", "model", "report.html", "attacks.json", ".lock"}
    assert read_record(finished.folder).num_steps == 2  # 8 forget rows are one batch an epoch
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")


def test_json_is_one_object_with_every_score(finished: Any) -> None:
    printed = finished.outcome.json()
    assert printed["run_dir"] == str(finished.folder)
    assert printed["recipe"] == "npo"
    assert printed["seconds"] > 0
    rows = {"forget": 8, "retain": 16, "neighbour": 8}
    for stage in ("before", "after"):
        assert set(printed["scores"][stage]) == set(rows)
        for split, metrics in printed["scores"][stage].items():
            assert set(metrics) >= METRICS
            for name, score in metrics.items():
                if score["value"] is None:
                    assert score["reason"], name
                    assert name in ("entailment", "choice_accuracy", "reasoning_leak") or (
                        name in ("sample_leak", "paraphrase_keyword_recall") and split != "forget"
                    )
                else:
                    assert score["low"] <= score["value"] <= score["high"], (stage, split, name)
                    assert score["n"] == rows[split]
    assert set(printed["kinds"]["after"]) == set(rows)
    assert printed["scores"]["after"] == read_record(finished.folder).model_dump()["after"]


def test_saved_model_loads_with_transformers_and_differs_from_the_original(finished: Any, tiny_folder: Path) -> None:
    saved = AutoModelForCausalLM.from_pretrained(finished.folder / "model").state_dict()
    original = AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict()
    tokenizer = AutoTokenizer.from_pretrained(finished.folder / "model")
    assert saved.keys() == original.keys()
    assert any(not saved[name].equal(original[name]) for name in saved)
    assert tokenizer.chat_template
    assert not list((finished.folder / "model").glob("*.bin"))


def _texts(facts: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Questions, answers and whole keywords of the forget rows that no other split has."""
    fields = ("question", "answer", "paraphrased_question", "paraphrased_answer")
    return {row[field] for row in facts["forget"] for field in fields}


def _unpacked(page: str) -> str:
    """A page with everything in it that is gzipped and base64."""
    inner = [base64.b64decode(text) for text in re.findall(r"[A-Za-z0-9+/=]{2000,}", page)]
    assert inner, "plotly is expected to be packed into the page"
    return page + "".join(gzip.decompress(data).decode() for data in inner)


def test_forget_text_is_nowhere_unless_asked_for(finished: Any, facts: dict[str, list[dict[str, Any]]]) -> None:
    seen = {"stdout": finished.outcome.out, "stderr": finished.outcome.err}
    for path in finished.folder.iterdir():
        if path.name == "items.parquet":
            seen[path.name] = str(parquet.read_table(path).to_pylist())
        elif path.name == "report.html":
            seen[path.name] = _unpacked(path.read_text(encoding="utf-8"))
        elif path.is_file():
            seen[path.name] = path.read_text(encoding="utf-8")
    assert len(seen) >= 6
    for place, text in seen.items():
        for secret in _texts(facts):
            assert secret not in text, f"{secret!r} in {place}"
    assert facts["forget"][0]["subject"] not in "".join(seen.values())


def test_forget_text_is_shown_when_asked_for(
    expunge: Any, subject: list[str], quick: list[str], facts: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    only = ["--set", "report.show_forget_text=true", "--set", 'evaluate.metrics=["keyword_recall"]']
    assert expunge("run", *subject, *quick, *only, "--out", tmp_path / "run", "--quiet").code == 0
    rows = parquet.read_table(tmp_path / "run" / "items.parquet").to_pylist()
    assert facts["forget"][0]["question"] in {row["question"] for row in rows}
    assert facts["forget"][0]["question"] in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_quiet_run_prints_a_table_and_nothing_on_stderr(
    expunge: Any, subject: list[str], quick: list[str], tmp_path: Path
) -> None:
    only = ["--set", 'evaluate.metrics=["keyword_recall", "probability"]']
    outcome = expunge("run", *subject, *quick, *only, "--out", tmp_path / "run", "--quiet")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "keyword" in outcome.out
    assert str(tmp_path / "run" / "report.html") in outcome.out.replace("\n", "")


def test_long_prompt_is_truncated_and_counted_when_asked_for(
    expunge: Any, subject: list[str], quick: list[str], facts: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The tiny model's context is 512 tokens; one question of 8 is far longer."""
    import json

    rows = [dict(row) for row in facts["forget"]]
    rows[3]["question"] = "Please tell me this. " * 120 + rows[3]["question"]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    only = ["--set", "model.overflow=truncate", "--set", 'evaluate.metrics=["probability"]']
    arguments = ["run", *subject, f"--forget={path}", *quick, *only, "--out", tmp_path / "run", "--quiet"]
    assert expunge(*arguments).code == 0
    record = read_record(tmp_path / "run")
    assert record.data["forget"].truncated == 1
    assert record.data["retain"].truncated == 0
    assert any("lost the start" in warning for warning in record.warnings)


@pytest.mark.parametrize("source", ["lora", "layers"])
def test_other_ways_to_choose_weights(
    expunge: Any, subject: list[str], quick: list[str], tmp_path: Path, source: str
) -> None:
    """LoRA of rank 16 on 7 linear layers of 3 blocks; or the last block's down projection, 96 * 256 weights."""
    settings = {
        "lora": ["model.adapter=lora"],
        "layers": ["localize.layers=[-1]", 'localize.modules=["mlp.down_proj"]', "localize.name=layers"],
    }
    only = [part for setting in settings[source] for part in ("--set", setting)]
    only += ["--set", 'evaluate.metrics=["probability"]']
    assert expunge("run", *subject, *quick, *only, "--out", tmp_path / "run", "--quiet").code == 0
    record = read_record(tmp_path / "run")
    if source == "lora":
        assert (tmp_path / "run" / "model" / "adapter_model.safetensors").is_file()
        # in + out features: q, o 192; k, v 144; gate, up, down 352
        assert record.selection.num_parameters == 16 * 3 * (2 * 192 + 2 * 144 + 3 * 352)
    else:
        assert record.selection.num_parameters == 96 * 256
        assert record.selection.evidence["layers"] == [2]
