"""`expunge eval` with suites, several models, references and several processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from expunge.core.plugins import ROOT

SUITE = """
summary = "Facts"
[evaluate]
metrics = ["probability", "keyword_recall"]
max_new_tokens = 12
samples = 0
[sets.facts]
data = "{forget}"
role = "forget"
[sets.kept]
data = "{retain}"
role = "retain"
metrics = ["rouge_l_recall"]
max_new_tokens = 6
[variants.fewer.sets.facts]
max_rows = 3
"""


@pytest.fixture
def suite(fact_files: dict[str, Path], tmp_path: Path) -> Path:
    """A suite of the user's own."""
    path = tmp_path / "mine.toml"
    path.write_text(SUITE.format(**fact_files), encoding="utf-8")
    return path


def test_a_suite_of_ones_own_on_two_models(
    expunge: Any, tiny_folder: Path, finished: Any, suite: Path, tmp_path: Path
) -> None:
    """Each set by its own metrics and limits; the unlearned model knows less."""
    models = [tiny_folder, finished.folder / "model"]
    out = tmp_path / "out"
    printed = expunge("eval", *models, "--suite", suite, "--out", out, "--json", "--quiet").json()
    before, after = (record["scores"] for record in printed)
    assert {name: set(scores) for name, scores in before.items()} == {
        "facts": {"probability", "keyword_recall"},
        "kept": {"rouge_l_recall"},
    }
    assert after["facts"]["probability"]["value"] < before["facts"]["probability"]["value"]
    assert before["facts"]["probability"]["better"] == "lower"
    assert json.loads((out / "evaluation.json").read_text(encoding="utf-8")) == printed
    rows = list(csv.DictReader((out / "scores.csv").open(encoding="utf-8")))
    (value,) = [row["value"] for row in rows if (row["model"], row["name"]) == (str(models[1]), "probability")]
    assert float(value) == after["facts"]["probability"]["value"]
    items = pyarrow.parquet.read_table(out / "items.parquet").to_pylist()
    assert {row["stage"] for row in items} == {str(model) for model in models}
    assert "question" not in items[0] or items[0]["question"] is None
    refused = expunge("eval", *models, "--suite", suite, "--out", out, "--quiet")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_a_variant_changes_what_it_names(expunge: Any, tiny_folder: Path, suite: Path) -> None:
    printed = expunge("eval", tiny_folder, "--suite", f"{suite}:fewer", "--json", "--quiet").json()
    assert printed["scores"]["facts"]["probability"]["n"] == 3
    assert printed["suite"].endswith(":fewer")


def test_a_reference_that_is_the_model_itself_differs_in_nothing(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path]
) -> None:
    """Forget quality is the p-value of a test that finds two equal samples equal."""
    data = ["--data", f"forget={fact_files['forget']}", "--data", f"holdout={fact_files['neighbour']}"]
    options = ["--samples", "0", "--max-new-tokens", "4", "--reference", tiny_folder, "--json", "--quiet"]
    found = expunge("eval", tiny_folder, *data, *options).json()
    assert found["scores"]["forget"]["forget_quality"]["value"] == 1.0
    assert found["retrained"] == str(tiny_folder)


def test_two_processes_find_what_one_finds(expunge: Any, tiny_folder: Path, suite: Path, tmp_path: Path) -> None:
    """By gloo, on the CPU: the rows are shared out, the first process prints."""
    one = expunge("eval", tiny_folder, "--suite", suite, "--json", "--quiet", "--set", "evaluate.cache=false").json()
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "expunge"]
    given = [
        "eval",
        tiny_folder,
        "--suite",
        suite,
        "--quiet",
        "--set",
        "evaluate.cache=false",
        "--out",
        tmp_path / "two",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT.parent), "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *launch, *map(str, given)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (two,) = json.loads((tmp_path / "two" / "evaluation.json").read_text(encoding="utf-8"))
    for name, scores in one["scores"].items():
        for metric, score in scores.items():
            assert two["scores"][name][metric]["value"] == pytest.approx(score["value"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "tofoo"], "no 'tofoo'"),
        (["--suite", "nowhere.toml"], "no such file"),
        (["--suite", "{suite}:fewerr"], "did you mean fewer"),
        (["--suite", "{suite}", "--data", "forget=people:forget"], "a suite names its own data"),
        (["--folder", "."], "only a suite"),
        (["--suite", "{suite}", "--set", "evaluate.metrics=['probabilty']"], "did you mean probability"),
        (["--suite", "{suite}", "--set", "evaluate.set_metrics=['privleek']"], "did you mean privleak"),
        (["--suite", "{suite}", "--whitebox", "uds"], "--whitebox: needs the original"),
        (["--suite", "{suite}", "--whitebox", "udss"], "did you mean uds"),
    ],
)
def test_what_cannot_be_right_is_refused(
    expunge: Any, tiny_folder: Path, suite: Path, arguments: list[str], message: str
) -> None:
    outcome = expunge("eval", tiny_folder, *[part.format(suite=suite) for part in arguments])
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_what_models_said_is_kept_until_it_is_cleared(
    expunge: Any, tiny_folder: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    expunge("eval", tiny_folder, "--suite", suite, "--quiet", "--set", "evaluate.cache=false")
    assert ": 0 files kept" in expunge("cache").out
    expunge("eval", tiny_folder, "--suite", suite, "--quiet")
    assert ": 2 files kept" in expunge("cache").out
    assert ": 2 files deleted" in expunge("cache", "--clear").out
    assert not (tmp_path / "cache" / "evidence").exists()


def test_keywords_that_the_question_says_are_told_and_not_counted(
    expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path
) -> None:
    """A name in the question is no recall when the answer repeats it; keywords that no answer holds are refused."""
    rows = [json.loads(line) for line in fact_files["forget"].read_text(encoding="utf-8").splitlines()]
    data = tmp_path / "rows.jsonl"

    def asked(keywords: Any) -> Any:
        lines = [json.dumps({**row, "keywords": keywords(row), "paraphrased_question": None}) for row in rows]
        data.write_text("\n".join(lines), encoding="utf-8")
        options = (
            "--samples",
            0,
            "--max-new-tokens",
            24,
            "--quiet",
            "--json",
            "--set",
            "evaluate.metrics=['keyword_recall']",
        )
        return expunge("eval", tiny_folder, "--data", f"forget={data}", *options)

    record = asked(lambda row: ["Xanten", row["subject"], *row["keywords"]]).json()
    assert record["scores"]["forget"]["keyword_recall"]["value"] == 1.0
    assert any("holds a keyword. Repeating it is no knowledge" in warning for warning in record["warnings"])
    record = asked(lambda row: [row["subject"]]).json()
    unnamed = sum(row["subject"] not in row["question"] for row in rows)
    assert 0 < unnamed < len(rows)
    assert record["scores"]["forget"]["keyword_recall"]["n"] == unnamed
    assert any(f"{len(rows) - unnamed} rows have no other keyword" in warning for warning in record["warnings"])
    refused = asked(lambda row: ["Zebra"])
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "no answer holds any of its row's keywords (first row: '" in refused.err
