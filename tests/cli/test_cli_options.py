"""Commands' own options: what is empty, contradicts itself or is of no use is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.config import load_run
from expunge.core.errors import UserError
from expunge.core.records import Evaluation, Score
from expunge.evaluate.reference import import_openunlearning
from expunge.reports.evaluation import print_evaluation, short_names
from expunge.reports.terminal import Terminal
from expunge.workflows.teach import load_teach


def refused(outcome: Any, *parts: str) -> None:
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    for part in parts:
        assert part in outcome.err


@pytest.mark.parametrize(
    "command", ["run", "eval", "attack", "compare", "report", "continual", "teach", "locate", "reproduce", "import-ou"]
)
def test_an_empty_name_is_no_current_folder(expunge: Any, command: str) -> None:
    refused(expunge(command, ""), "an argument is empty")
    refused(expunge(command, " "), "an argument is empty")
    refused(expunge(command, "x", "--out="), "--out is empty")


def test_eval_takes_each_thing_once_and_by_name(expunge: Any, fact_files: dict[str, Path]) -> None:
    facts = f"forget={fact_files['forget']}"
    given = ["eval", "m", "--data", facts]
    refused(expunge(*given, "--data", facts), "forget is named twice")
    refused(expunge("eval", "m", "--data", "forget="), "names no data")
    refused(expunge(*given, "--whitebox", ","), "--whitebox", "names with commas")
    old = expunge(*given, "--depth", ",").err.splitlines()
    assert old[0] == "warning: --depth is now called --whitebox; the old name will be removed in the next release"
    assert "names with commas" in old[1]
    refused(expunge(*given, "--lm-eval", "mmlu,,"), "--lm-eval")
    refused(expunge(*given, "--set", "model.name=other"), "model.name")
    refused(expunge(*given, "--seed", str(2**32)), "--seed")
    refused(expunge(*given, "--samples", str(10**9)), "evaluate.samples")


def test_options_of_an_attack_are_a_table(expunge: Any, tiny_folder: Path, fact_files: dict[str, Path]) -> None:
    arguments = ["--data", f"forget={fact_files['forget']}", "--attack", "sampling", "--set", "attacks.sampling=1"]
    refused(expunge("attack", tiny_folder, *arguments), "attacks.sampling.OPTION=VALUE", "expunge show attack sampling")


@pytest.mark.parametrize("data", ["data = 1", 'data = "x"', "data = []"])
def test_a_run_file_whose_data_is_no_table(expunge: Any, tmp_path: Path, data: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f'recipe = "npo"\nmodel = "m"\n{data}\n')
    refused(expunge("continual", file, "--out", tmp_path / "out"), "data")
    refused(expunge("run", file, "--out", tmp_path / "out"), "data")
    assert list(tmp_path.iterdir()) == [file]


def test_a_model_may_be_its_name(tmp_path: Path) -> None:
    """In a run file, and in a teaching file, whose data lie beside it."""
    (tmp_path / "facts.jsonl").write_text(json.dumps({"question": "q", "answer": "a"}) + "\n")
    (tmp_path / "run.toml").write_text(
        'recipe = "npo"\nmodel = "smollm2-135m"\n[data]\nforget = "facts.jsonl"\nretain = "people:retain"\n'
    )
    (tmp_path / "teach.toml").write_text('model = "smollm2-135m"\n[data]\nteach = ["facts.jsonl"]\n')
    run = load_run(tmp_path / "run.toml")
    assert run.model.name == "smollm2-135m"
    assert load_run(tmp_path / "run.toml", None, ["model.adapter=lora"]).model.name == "smollm2-135m"
    taught = load_teach(tmp_path / "teach.toml")
    assert taught.model.name == "smollm2-135m"
    assert str(tmp_path / "facts.jsonl") in str(taught.data.teach)


def test_a_log_without_any_value_is_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "TOFU_EVAL.json"
    path.write_text(json.dumps({"forget_Q_A_Prob": {"agg_value": None, "value_by_index": {"0": {"prob": None}}}}))
    with pytest.raises(UserError, match="value"):
        import_openunlearning(path)


def test_models_side_by_side_with_their_warnings() -> None:
    """Absent scores once below; names as short as they can be."""
    from io import StringIO

    def evaluation(model: str, value: float) -> Evaluation:
        scores = {
            "recall": Score(value=value, low=0.0, high=1.0, n=4),
            "entailment": Score(value=None, reason="no NLI"),
        }
        return Evaluation(
            model=model,
            data={},
            scores={"forget": scores, "retain": scores},
            aggregates={},
            kinds={},
            warnings=["Few rows."],
        )

    out = StringIO()
    print_evaluation([evaluation("runs/a/model", 0.25), evaluation("runs/b/model", 0.75)], Terminal(file=out, width=60))
    shown = out.getvalue()
    assert shown.count("no NLI") == 1
    assert "absent, no NLI: entailment (forget, retain)" in shown
    assert "a/model" in shown.split("recall")[0]
    assert "Warning (runs/a/model): Few rows." in shown
    assert short_names(["x/y", "x/z"]) == ["y", "z"]
    assert short_names(["a/model", "b/model", "b/model"]) == ["a/model", "b/model", "b/model"]
