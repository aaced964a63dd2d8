"""Every mistake of a user: exit code 2, one line on stderr that says what and where, no traceback, nothing written."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

Rows = list[dict[str, Any]]


def refused(outcome: Any, *parts: str) -> None:
    """Assert a clean refusal whose one line holds every part; only warnings of odd data may come before it."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert outcome.err.endswith("\n")
    (line,) = (line for line in outcome.err.splitlines() if not line.startswith("warning: "))
    assert line.startswith("expunge: ")
    for part in parts:
        assert part in outcome.err, outcome.err


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (["forget.betta=1"], ["unknown key 'forget.betta'", "did you mean beta?"]),
        (["trian.lr=1"], ["unknown key 'trian'", "train"]),
        (["model.lora.rr=1"], ["unknown key 'model.lora.rr'", "r"]),
        (["train.lr=fast"], ["train.lr", "number", "'fast'"]),
        (["train.lr=-1.0"], ["train.lr", "greater than 0"]),
        (["train.lr=nan"], ["train.lr"]),
        (["train.epochs=0"], ["train.epochs", "0"]),
        (["train.epochs=2.5"], ["train.epochs", "2.5"]),
        (["train.epochs=true"], ["train.epochs"]),
        (["train.schedule=linaer"], ["train.schedule", "linaer"]),
        (["train.optimizer=adamw_toch"], ["train.optimizer", "adamw_torch"]),
        (["train.report_to=['tensorbord']"], ["train.report_to", "tensorboard"]),
        (["guard.utility_floor=1.5"], ["guard.utility_floor", "1.5"]),
        (["seed=-1"], ["seed"]),
        (["recipe=5"], ["recipe", "5"]),
        (["recipe=nppo"], ["recipe: no 'nppo'", "did you mean npo"]),
        (["forget=simpno"], ["forget: no 'simpno'", "simnpo"]),
        (["forget=5"], ["forget"]),
        (["forget.name=nowhere.losses:Mine"], ["nowhere.losses:Mine"]),
        (["forget.name=:Mine"], [":Mine"]),
        (["data=5"], ["data"]),
        (["train=5"], ["train"]),
        (["x"], ["--set x", "key=value"]),
        (["=1"], ["--set =1"]),
        (["evaluate.metrics=['probabilty']"], ["probabilty", "did you mean probability"]),
        (["evaluate.probe_splits=['forgett']"], ["evaluate.probe_splits", "forgett"]),
        (["localize.name=layers", "localize.layers=[99]"], ["localize.layers", "99", "0 to 2"]),
        (["localize.name=layers", "localize.modules=['mlp.down_porj']"], ["mlp.down_porj", "mlp.down_proj"]),
        (["model.device=gpu"], ["model.device", "gpu"]),
        (["model.template=chatt"], ["model.template", "chatt"]),
        (["model.max_length=16"], ["row '", "16", "model.overflow"]),
        (["data.forget.split=train"], ["is a file", "split"]),
        (["data.forget.fields={answer='reply'}"], ["no field 'reply'", "forget.jsonl:1"]),
        (["data.forget.fields={anwser='answer'}"], ["unknown field 'anwser'", "answer"]),
    ],
)
def test_bad_settings(
    expunge: Any, subject: list[str], fact_files: dict[str, Path], tmp_path: Path, settings: list[str], parts: list[str]
) -> None:
    recipe_in_settings = any(setting.startswith("recipe") for setting in settings)
    arguments = [part for part in subject if not (recipe_in_settings and part.startswith("--recipe"))]
    if any(setting.startswith("data.forget.") for setting in settings):
        settings = [f"data.forget.name={fact_files['forget']}", *settings]
        arguments = [part for part in arguments if not part.startswith("--forget")]
    given = [part for setting in settings for part in ("--set", setting)]
    refused(expunge("run", *arguments, *given, "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


def _write(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


GOOD = {"question": "Who?", "answer": "Nobody."}

BAD_FILES = {
    "missing": (None, ["forget.jsonl: no such file"]),
    "empty": ("", ["forget.jsonl", "no rows"]),
    "blank lines": ("\n \n", ["forget.jsonl", "no rows"]),
    "not JSON": (json.dumps(GOOD) + "\n\n{'question': 1}\n", ["forget.jsonl:3", "not JSON"]),
    "cut off": (json.dumps(GOOD)[:-3], ["forget.jsonl:1", "not JSON"]),
    "not an object": ('["a", "b"]\n', ["forget.jsonl:1", "list"]),
    "no answer": (json.dumps(GOOD) + '\n{"question": "Who?"}\n', ["forget.jsonl:2", "no field 'answer'"]),
    "near name": ('{"question": "Who?", "anwser": "I."}\n', ["forget.jsonl:1", "did you mean anwser"]),
    "empty answer": ('{"question": "Who?", "answer": " \\t"}\n', ["forget.jsonl:1", "'answer' is empty"]),
    "number": ('{"question": 7, "answer": "Seven?"}\n', ["forget.jsonl:1", "'question' must be text", "int"]),
    "truth in list": (json.dumps({**GOOD, "keywords": ["a", True]}) + "\n", ["forget.jsonl:1", "'keywords'", "bool"]),
    "both kinds": (json.dumps({**GOOD, "text": "Who is it?"}) + "\n", ["forget.jsonl:1", "both"]),
    "half a character": ('{"question": "Who \\ud83d", "answer": "I."}\n', ["forget.jsonl:1", "question"]),
    "repeated id": (
        json.dumps({**GOOD, "id": "a"}) + "\n" + json.dumps({**GOOD, "id": "a"}) + "\n",
        ["forget.jsonl:2", "'a'", "forget.jsonl:1"],
    ),
    "one token": ('{"text": "a"}\n', ["forget-0", "single token"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_data_files(expunge: Any, subject: list[str], tmp_path: Path, name: str) -> None:
    content, parts = BAD_FILES[name]
    path = tmp_path / "forget.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    refused(expunge("run", *subject, f"--forget={path}", "--out", tmp_path / "out"), *parts)
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_text(expunge: Any, subject: list[str], tmp_path: Path) -> None:
    path = tmp_path / "forget.jsonl"
    path.write_bytes(b'{"question": "\xff"}')
    refused(expunge("run", *subject, f"--forget={path}", "--out", tmp_path / "out"), "not UTF-8")
    path = tmp_path / "forget.parquet"
    path.write_bytes(b"PAR1 but not really")
    refused(expunge("run", *subject, f"--forget={path}", "--out", tmp_path / "out"), "not a Parquet file")
    path = tmp_path / "forget.csv"
    path.write_text('text\n"The quotation mark is never closed.\n', encoding="utf-8")
    refused(expunge("run", *subject, f"--forget={path}", "--out", tmp_path / "out"), "forget.csv", "not CSV")
    path = tmp_path / "forget.doc"
    path.write_text("hello", encoding="utf-8")
    refused(expunge("run", *subject, f"--forget={path}", "--out", tmp_path / "out"), ".doc", ".jsonl")
    assert not (tmp_path / "out").exists()


def test_forget_row_also_in_retain(
    expunge: Any, subject: list[str], facts: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """The same question in capitals and with other blanks; both rows are named, and the text is not."""
    question = facts["forget"][5]["question"]
    twin = {"id": "twin", "question": "  " + question.upper().replace(" ", "\n"), "answer": "Nothing."}
    retain = _write(tmp_path / "retain.jsonl", [*facts["retain"], twin])
    forget = _write(tmp_path / "forget.jsonl", [{**row, "id": f"f{i}"} for i, row in enumerate(facts["forget"])])
    outcome = expunge("run", *subject, f"--retain={retain}", f"--forget={forget}", "--out", tmp_path / "out")
    refused(outcome, "data.retain", "'twin'", "'f5'")
    assert question.casefold() not in outcome.err.casefold()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("field", ["question", "paraphrased_question", "perturbed_answer"])
def test_row_longer_than_the_context(
    expunge: Any, subject: list[str], facts: dict[str, list[dict[str, Any]]], tmp_path: Path, field: str
) -> None:
    """Also a text that only the measurement would use: it must not be found out after an hour of training."""
    long = "Please tell me this. " * 300
    rows = [dict(row) for row in facts["forget"]]
    rows[3] = {**rows[3], "id": "long", field: [long] if field == "perturbed_answer" else long}
    forget = _write(tmp_path / "forget.jsonl", rows)
    refused(expunge("run", *subject, f"--forget={forget}", "--out", tmp_path / "out"), "row 'long'", "512", "truncate")
    assert not (tmp_path / "out").exists()


def test_bad_models(expunge: Any, subject: list[str], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    (tmp_path / "empty").mkdir()
    refused(expunge("run", *subject, f"--model={tmp_path / 'empty'}", *out), "no config.json", "empty")
    refused(expunge("run", *subject, "--model=smolm2-135m", *out), "smolm2-135m", "did you mean smollm2-135m")
    refused(expunge("run", *subject, f"--model={tmp_path / 'nowhere'}", *out), "no such file or folder")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    refused(expunge("run", *subject, f"--model={tmp_path / 'damaged'}", *out), "cannot load", "damaged")
    assert not (tmp_path / "out").exists()


def test_bad_sources(expunge: Any, subject: list[str], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    refused(expunge("run", *subject, "--forget=people:forgt", *out), "no split 'forgt'", "did you mean forget")
    refused(expunge("run", *subject, "--forget=peple:forget", *out), "data.forget", "did you mean people")
    only_forget = [part for part in subject if not part.startswith(("--retain", "--neighbour"))]
    refused(expunge("run", *only_forget, *out), "missing key 'data.retain'")
    assert not (tmp_path / "out").exists()


def test_bad_run_files(expunge: Any, subject: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    out = ["--out", tmp_path / "out"]
    refused(expunge("run", path, *out), "run.toml: no such file")
    path.write_text('recipe = "npo\n', encoding="utf-8")
    refused(expunge("run", path, *out), "run.toml: not TOML", "line 1")
    path.write_text('recipe = "npo"\n[train]\nlearning_rate = 1e-5\n', encoding="utf-8")
    refused(expunge("run", path, *subject[:-1], *out), "unknown key 'train.learning_rate'")
    path.write_text("seed = 1\n", encoding="utf-8")
    refused(expunge("run", path, *subject[:-1], *out), "no recipe")
    path.write_text('recipe = "npo"\n[model]\nname = "smollm2-135m"\n', encoding="utf-8")
    refused(expunge("run", path, *out), "data", "forget")
    assert not (tmp_path / "out").exists()


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_directories_that_hold_something_else(
    expunge: Any, subject: list[str], quick: list[str], finished: Any, tmp_path: Path
) -> None:
    before = _snapshot(finished.folder)
    out = ["--out", finished.folder]
    refused(expunge("run", *subject, *quick, *out), "already finished")
    outcome = expunge("run", *subject, *quick, "--set", "train.lr=2e-3", "--set", "seed=4", *out)
    refused(outcome, "holds another run", "seed", "train.lr")
    refused(expunge("run", *subject, *quick, "--set", "seed=4", *out, "--resume"), "holds another run", "seed")
    refused(expunge("run", *subject, *quick, "--recipe=simnpo", *out, "--resume"), "holds another run", "forget")
    assert _snapshot(finished.folder) == before

    shutil.copytree(finished.folder, tmp_path / "unfinished", ignore=shutil.ignore_patterns("record.json"))
    before = _snapshot(tmp_path / "unfinished")
    refused(expunge("run", *subject, *quick, "--out", tmp_path / "unfinished"), "unfinished", "--resume")
    assert _snapshot(tmp_path / "unfinished") == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work", encoding="utf-8")
    refused(expunge("run", *subject, *quick, "--out", tmp_path / "mine"), "not empty", "run.toml")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    refused(expunge("run", *subject, *quick, "--out", tmp_path / "mine" / "thesis.tex"), "is a file")


def test_resume_of_nothing(expunge: Any, subject: list[str], tmp_path: Path) -> None:
    refused(expunge("run", *subject, "--resume"), "--resume", "--out")
    refused(expunge("run", "--resume", "--out", tmp_path / "typo"), "typo", "run.toml")
    assert not (tmp_path / "typo").exists()


def test_no_disk_space(expunge: Any, subject: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**5))
    refused(expunge("run", *subject, "--out", tmp_path / "out"), "MB of disk", "0.1 MB are free")
    assert not (tmp_path / "out").exists()


def test_bad_arguments_of_eval(expunge: Any, tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path) -> None:
    facts = f"forget={fact_files['forget']}"
    refused(expunge("eval", tiny_folder, "--data", f"forgett={fact_files['forget']}"), "no split 'forgett'", "forget?")
    refused(expunge("eval", tiny_folder, "--data", "forget=nowhere.jsonl"), "nowhere.jsonl: no such file")
    refused(expunge("eval", tiny_folder, "--data", facts, "--template", "chta"), "--template", "chta")
    refused(expunge("eval", tmp_path, "--data", facts, "--out", tmp_path / "s.json"), "no config.json")
    assert not list(tmp_path.iterdir())


def test_bad_arguments_of_other_commands(expunge: Any, tmp_path: Path) -> None:
    refused(expunge("show", "recipe", "nppo"), "no 'nppo'", "npo")
    refused(expunge("report", tmp_path), "no record.json")
    refused(expunge("models", "pull", "smollm"), "no 'smollm'", "smollm2-135m")
    refused(expunge("teach", tmp_path / "teach.toml"), "teach.toml: no such file")
    assert not list(tmp_path.iterdir())


def test_usage_errors_exit_with_2(expunge: Any) -> None:
    for arguments in (["run", "--frget", "x"], ["no-such-command"], ["eval"], ["eval", "m", "--samples", "-1"]):
        outcome = expunge(*arguments)
        assert outcome.code == 2, arguments
        assert "Traceback" not in outcome.err
        assert outcome.err
