"""Requests one after another: each is forgotten, and what went before is scored again."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from expunge.core.errors import UserError
from expunge.core.toml import read_toml
from expunge.reports.continual import PAGE, sequence_tables, verdict
from expunge.workflows.continual import execute_plan, load_plan, read_sequence, step_folder


@pytest.fixture(scope="module")
def file(tiny_folder: Path, fact_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authors of the tiny model, to be forgotten in turn."""
    path = tmp_path_factory.mktemp("sequence") / "sequence.toml"
    forget = str(fact_files["forget"])
    requests = [{"name": forget, "limit": 4}, {"name": forget, "skip": 4}]
    tables: dict[str, Any] = {
        "recipe": "npo",
        "model": {"name": str(tiny_folder)},
        "data": {"requests": requests, "retain": str(fact_files["retain"]), "neighbour": str(fact_files["neighbour"])},
        "train": {"lr": 1e-3, "epochs": 6, "batch_size": 4, "retain_ratio": 5},
        "guard": {"utility_floor": 0.0},
        "evaluate": {"metrics": ["keyword_recall", "probability"], "max_new_tokens": 16},
    }
    path.write_text(tomli_w.dumps(tables))
    return path


@pytest.fixture(scope="module")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That sequence, carried out."""
    out = tmp_path_factory.mktemp("done") / "out"
    execute_plan(load_plan(file, out), out)
    return out


def test_a_step_forgets_its_request_keeps_those_to_come_and_leaves_earlier_ones_out(file: Path, tmp_path: Path) -> None:
    plan = load_plan(file, tmp_path / "out")
    first, second = plan.runs
    assert [row.id for row in plan.requests[0]] != [row.id for row in plan.requests[1]]
    assert len(plan.requests[0]) == len(plan.requests[1]) == 4
    assert first.data.retain.also == (second.data.forget,)
    assert second.data.retain.also == ()
    assert second.model.name == str(step_folder(tmp_path / "out", 1) / "model")
    assert second.model.model_copy(update={"name": first.model.name}) == first.model


def test_every_request_is_scored_after_every_step(done: Path) -> None:
    record = read_sequence(done)
    assert [step.step for step in record.steps] == [0, 1, 2]
    known = [[request["probability"].value or 0 for request in step.requests] for step in record.steps]
    assert known[1][0] < known[0][0] / 2, "the first request is forgotten by the first step"
    assert known[1][1] > 2 * known[1][0], "the second one is retained meanwhile"
    assert known[2][1] < known[1][1] / 2, "and is forgotten by the second step"
    lines = sequence_tables(record)[0].lines
    assert [[line.state(step) for step in range(3)] for line in lines] == [
        ["later", "now", "earlier"],
        ["later", "later", "now"],
    ]
    assert verdict(record).startswith("After 2 of 2 requests, keyword recall is at most")
    page = (done / PAGE).read_text()
    assert "step-2/report.html" in page
    assert (done / "step-2" / "report.html").is_file()


def test_the_reference_can_stay_the_first_model(file: Path, tiny_folder: Path, done: Path, tmp_path: Path) -> None:
    """With it step 1 is the same, and step 2 another: NPO's ratio is then to the first model."""
    out = tmp_path / "out"
    record = execute_plan(load_plan(file, out, [f"model.reference={tiny_folder}"]), out)
    free = read_sequence(done)
    assert record.steps[1].requests == free.steps[1].requests
    assert record.steps[2].requests != free.steps[2].requests


def test_a_killed_sequence_goes_on_after_the_last_whole_step(file: Path, done: Path, tmp_path: Path) -> None:
    """A kill after step 1 leaves its folder and a record of two rows; going on gives the same second step."""
    out = tmp_path / "out"
    shutil.copytree(done / "step-1", out / "step-1")
    whole = read_sequence(done)
    (out / "sequence.json").write_text(whole.model_copy(update={"steps": whole.steps[:2]}).model_dump_json())
    with pytest.raises(UserError, match="1 of 2 steps done; add --resume"):
        execute_plan(load_plan(file, out), out)
    with pytest.raises(UserError, match="holds another sequence"):
        execute_plan(load_plan(file, out, ["train.lr=2e-3"]), out, resume=True)
    again = execute_plan(load_plan(file, out), out, resume=True)
    assert [step.requests for step in again.steps] == [step.requests for step in whole.steps]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": ["a.jsonl"]}, "data.requests: name at least two"),
        ({"forget": "a.jsonl"}, "data.forget: leave it out"),
        ({"retain": None}, "missing key 'data.retain'"),
        ({"requests": "twice"}, "data.requests.1: row .* is also in data.requests.0"),
    ],
)
def test_refusals(
    file: Path, fact_files: dict[str, Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:

    tables = read_toml(file)
    data = {**tables["data"], **change}
    if data["requests"] == "twice":
        data["requests"] = [str(fact_files["forget"])] * 2
    tables["data"] = {key: value for key, value in data.items() if value is not None}
    changed = tmp_path / "changed.toml"
    changed.write_text(tomli_w.dumps(tables))
    with pytest.raises(UserError, match=message):
        load_plan(changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_room_for_all_models_is_asked_for_before_the_first_step(
    file: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for one model is not enough for two, which a sequence of two requests leaves."""
    one = sum(path.stat().st_size for path in tiny_folder.iterdir())
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, int(1.5 * one)))
    with pytest.raises(UserError, match=r"a sequence of 2 models needs .* MB of disk"):
        execute_plan(load_plan(file, tmp_path / "out"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("step-*"))


def test_a_directory_with_something_else_is_left_alone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        execute_plan(load_plan(file, tmp_path), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
