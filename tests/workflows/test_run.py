"""A run as a whole: it forgets, it can be repeated, and no kill at any moment damages it."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from safetensors.torch import load_file

import expunge
from expunge.config import Run, load_run
from expunge.core.errors import UserError
from expunge.core.output_dir import claimed
from expunge.core.records import Record, read_record
from expunge.workflows.run import check_out, execute

Plan = Callable[..., Run]
OTHER_DAY = datetime.date(2031, 1, 2)
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
"""Python's audit events of what changes a folder; they come just before the change."""


@pytest.fixture(scope="module")
def plan(tiny_folder: Path, fact_files: dict[str, Path]) -> Plan:
    """A run on the tiny model; keyword arguments are tables."""

    def make(settings: tuple[str, ...] = (), **tables: Any) -> Run:
        data = {name: str(path) for name, path in fact_files.items()}
        return load_run(None, {"recipe": "npo", "model": {"name": str(tiny_folder)}, "data": data, **tables}, settings)

    return make


@pytest.fixture(scope="module")
def short(plan: Plan) -> Run:
    """Two batches an epoch, two epochs, a checkpoint after every step, a cheap measurement."""
    return plan(
        train={"lr": 5e-4, "epochs": 2, "batch_size": 4, "checkpoint_every": 1},
        evaluate={"metrics": ["probability", "keyword_recall"], "max_new_tokens": 2, "max_rows": 4},
        guard={"every": 1},
    )


@pytest.fixture(scope="module")
def whole(short: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of that run, unbroken; not to be written to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    execute(short, folder)
    return folder


def test_a_run_keeps_the_date_of_its_first_start(
    short: Run, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template that writes the date sees the same one on the next day; other runs have none."""
    folder, out = tmp_path / "dated", tmp_path / "run"
    shutil.copytree(tiny_folder, folder)
    template = "{{ '<|system|>' + strftime_now('%d %b %Y') + '<|end|>' }}"
    (folder / "chat_template.jinja").write_text(template + (tiny_folder / "chat_template.jinja").read_text())
    train = short.train.model_copy(update={"epochs": 1, "checkpoints": False})
    run = short.model_copy(update={"model": short.model.model_copy(update={"name": str(folder)}), "train": train})
    today = datetime.date.today().isoformat()
    assert execute(run, out).record.config["model"]["date"] == today
    monkeypatch.setattr("expunge.data.chat.today", lambda: OTHER_DAY)
    assert execute(run, out, resume=True).record.config["model"]["date"] == today
    with pytest.raises(UserError, match=r"different: model\.date"):
        check_out(run.model_copy(update={"model": run.model.model_copy(update={"date": OTHER_DAY})}), out, True)
    assert "date" not in short.tables()["model"]


def _scores(record: Record) -> dict[str, Any]:
    return record.model_dump(include={"before", "after", "steps", "checks", "guard", "num_steps", "selection", "data"})


def _in_child(work: Callable[[], None]) -> int:
    """Do work in a forked process, torch and all; gives its exit code, negative when a signal ended it."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(120)
    assert child.exitcode is not None, "the child hangs"
    return child.exitcode


def _run_and_die(run: Run, out: Path, place: str) -> int:
    """Run, or go on with a run, in a process that is killed just before it first makes or removes a `place`."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and fnmatch(str(arguments[event == "os.rename"]), str(out / place)):
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        sys.addaudithook(hook)
        execute(run, out, resume=True)

    return _in_child(work)


def _check_nothing_is_half_done(out: Path, whole: Path) -> None:
    """What stands under a final name is whole, whatever moment the process died at."""
    if (out / "record.json").exists():
        read_record(out)
        assert (out / "model").is_dir()
    if (out / "model").exists():
        names = {path.name for path in (out / "model").iterdir()}
        assert names == {path.name for path in (whole / "model").iterdir()}
        load_file(out / "model" / "model.safetensors")
    for checkpoint in out.glob("work/checkpoint-*"):
        assert {"trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt"} <= {
            path.name for path in checkpoint.iterdir()
        }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_run_killed_again_and_again_ends_as_an_unbroken_one(short: Run, whole: Path, tmp_path: Path) -> None:
    """A process dies before each of these changes in turn; four steps are four checkpoints, each replacing the last.

    Once the model stands without a record, the next attempt makes it again: the old one steps aside whole.
    """
    out = tmp_path / "killed"
    places = (
        "run.toml",
        "work/good.safetensors",
        "work/staging/checkpoint-1",
        "work/checkpoint-1",
        "work/doomed-checkpoint-1",
        "work/checkpoint-3",
        "work/checkpoint-4",
        "items.parquet",
        "model",
        "record.json",
        "model.*.partial",
        "report.html",
    )
    for place in places:
        assert _run_and_die(short, out, place) == -signal.SIGKILL, place
        _check_nothing_is_half_done(out, whole)
        assert (out / "model").exists() == (places.index(place) >= places.index("record.json")), place
        assert (out / "record.json").exists() == (place == "report.html"), place

    record = execute(short, out, resume=True).record
    assert _scores(record) == _scores(read_record(whole))
    assert (out / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


def test_finished_run_is_completed_and_not_repeated(short: Run, whole: Path, tmp_path: Path) -> None:
    """A kill between record and report leaves both to be finished, and nothing to be trained."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "work").mkdir()
    before = (tmp_path / "run" / "record.json").read_bytes()
    result = execute(short, tmp_path / "run", resume=True)
    assert result.model is None
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "work").exists()
    assert (tmp_path / "run" / "record.json").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_second_process_in_the_same_directory_is_refused(short: Run, tmp_path: Path) -> None:
    refusals = []

    def second() -> None:
        try:
            execute(short, tmp_path / "run", resume=True)
        except UserError as error:
            sys.exit(7 if "another process" in str(error) else 8)

    with claimed(tmp_path / "run"):
        refusals.append(_in_child(second))
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert refusals == [7]


def test_directory_taken_while_the_model_loaded_is_refused(
    short: Run, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both processes found the directory empty; the slower one must not write over the faster one's results."""
    other = tomli_w.dumps(plan(seed=5).tables())

    @contextmanager
    def slow(out: Path) -> Iterator[None]:
        with claimed(out):
            (out / "run.toml").write_text(other)
            yield

    monkeypatch.setattr("expunge.workflows.run.claimed", slow)
    with pytest.raises(UserError, match="another run"):
        execute(short, tmp_path / "run")
    assert (tmp_path / "run" / "run.toml").read_text() == other


def test_killed_before_anything_was_written_starts_anew(short: Run, tmp_path: Path) -> None:
    for name in (".lock", "run.toml.partial"):
        (tmp_path / name).touch()
    check_out(short, tmp_path, False)


def test_run_repeated_from_its_own_file(short: Run, tmp_path: Path) -> None:
    """Another seed than 0, and a value that TOML cannot hold as such: no utility floor."""
    tables = short.tables()
    tables["seed"] = 3
    tables["guard"]["utility_floor"] = None
    first = execute(load_run(None, {**tables}), tmp_path / "first").record
    second = execute(load_run(tmp_path / "first" / "run.toml"), tmp_path / "second").record
    assert _scores(second) == _scores(first)
    assert second.config == first.config
    assert first.guard.utility_floor is None
    check_out(load_run(None, first.config), tmp_path / "first", True)


def test_another_seed_is_another_run(short: Run, whole: Path, tmp_path: Path) -> None:
    first = read_record(whole)
    second = execute(load_run(None, {**short.tables(), "seed": 1}), tmp_path).record
    assert [step.values for step in first.steps] != [step.values for step in second.steps]
    assert first.model.sha256 == second.model.sha256


def test_forgetting_is_real(plan: Plan, tmp_path: Path) -> None:
    """Settings were chosen on seed 0; this is seed 1.

    The tiny model knows its 32 facts by heart and nothing else, so that the retain rows need weight to hold. Kinds of
    answer agree with keyword recall: what says the keyword is a leak, or correct.
    """
    run = plan(
        seed=1,
        combine={"retain_weight": 12.0},
        train={"lr": 5e-4, "epochs": 25, "retain_ratio": 4, "checkpoints": False},
        evaluate={"samples": 2, "max_new_tokens": 24},
        guard={"utility_floor": 0.5},
    )
    record = execute(run, tmp_path / "run").record
    before, after = record.before, record.after
    assert before["forget"]["keyword_recall"].value == 1.0
    assert after["forget"]["keyword_recall"].value <= 0.25
    assert after["forget"]["probability"].value < 0.1
    assert after["retain"]["keyword_recall"].value >= 0.75 * before["retain"]["keyword_recall"].value
    assert after["neighbour"]["keyword_recall"].value >= 0.5
    for stage, scores in (("before", before), ("after", after)):
        for split, kinds in record.kinds[stage].items():
            said = kinds["leak" if split == "forget" else "correct"]
            assert said / sum(kinds.values()) == scores[split]["keyword_recall"].value
    assert record.kinds["before"]["forget"] == {"leak": 8, "refusal": 0, "hallucination": 0, "gibberish": 0}
    saved = str(tmp_path / "run" / "model")
    again = expunge.measure(saved, {"forget": run.data.forget.name}, seed=1, config=run.evaluate)
    del again.scores["forget"]["cosine_similarity"], after["forget"]["cosine_similarity"]
    for name, score in after["forget"].items():
        found = again.scores["forget"][name].value
        assert found == (score.value and pytest.approx(score.value, rel=1e-6)), f"{name}: measured is not saved"
    assert again.kinds["forget"] == record.kinds["after"]["forget"]


def test_documents_cannot_be_refused(plan: Plan, tmp_path: Path) -> None:
    """Told before anything is written, with the row that is meant."""
    (tmp_path / "book.json").write_text(json.dumps([{"id": "book", "text": "A dark night."}]), encoding="utf-8")
    data = {"forget": plan().data.forget.name, "retain": plan().data.retain.name}
    for slot in data:
        run = plan(recipe="idk_ap", data={**data, slot: str(tmp_path / "book.json")})
        with pytest.raises(UserError, match="'book'"):
            execute(run, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_documents_can_be_forgotten(plan: Plan, facts: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Texts instead of questions, long enough to be cut: 8 answers are more than 32 tokens together."""
    text = " ".join(row["answer"] for row in facts["forget"])
    (tmp_path / "book.json").write_text(json.dumps([{"id": "book", "text": text}]), encoding="utf-8")
    run = plan(
        data={"forget": str(tmp_path / "book.json"), "retain": plan().data.retain.name, "chunk_tokens": 32},
        train={"lr": 1e-3, "epochs": 4},
        evaluate={"samples": 1, "max_new_tokens": 16},
    )
    record = execute(run, tmp_path / "run").record
    assert record.data["forget"].rows > 2
    assert record.after["forget"]["probability"].value < record.before["forget"]["probability"].value
    assert record.after["forget"]["rouge_l_recall"].value is not None
    assert record.after["forget"]["keyword_recall"].reason == "rows without keywords"


def test_run_file_beside_its_data(
    tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data files are named relative to the run file; the run is started somewhere else."""
    home = tmp_path / "home"
    home.mkdir()
    for name, path in fact_files.items():
        (home / f"{name}.jsonl").write_bytes(path.read_bytes())
    tables = {
        "recipe": "simnpo",
        "model": {"name": str(tiny_folder)},
        "data": {"forget": "forget.jsonl", "retain": {"name": "retain.jsonl", "limit": 4}},
        "train": {"epochs": 1},
        "evaluate": {"metrics": ["probability"]},
    }
    (home / "run.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    record = execute(load_run(Path("home/run.toml")), Path("out")).record
    assert record.data["retain"].rows == 4
    assert (tmp_path / "out" / "report.html").is_file()
