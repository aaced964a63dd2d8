"""Files from others, below the commands: pickles, links, paths, formulas, and what `python -m` finds."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import tomli_w
import torch
from jinja2.exceptions import SecurityError

from expunge.config import load_run
from expunge.core.errors import ExpungeError, UserError
from expunge.core.output_dir import claimed
from expunge.core.permission import granted
from expunge.core.toml import read_toml
from expunge.data.base import DataSpec
from expunge.data.load import load_examples
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.reports.evaluation import as_csv
from expunge.workflows.attack import attack_target
from expunge.workflows.diagnose import check_free
from expunge.workflows.reproduce import load_reproduction
from expunge.workflows.run import execute


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def test_python_m_finds_nothing_in_the_working_folder(tmp_path: Path) -> None:
    """Modules of Python, of a library and of a package that is not installed; the command's own work goes on."""
    for name in ("__future__", "typing", "typer", "torch", "rich", "sitecustomize_no", "wandb", "json"):
        (tmp_path / f"{name}.py").write_text(
            f"from pathlib import Path\nPath({str(tmp_path)!r}, 'ran-' + __name__).touch()\n", encoding="utf-8"
        )
    package = str(Path(load_run.__code__.co_filename).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"}
    called = subprocess.run(
        [sys.executable, "-m", "expunge", "list", "metrics", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)
    assert sorted(path.name for path in tmp_path.glob("ran-*")) == []


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.safetensors"])
def test_no_pickle_of_a_model_folder_is_loaded(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    if name == "adapter_model.bin":
        (folder / "config.json").unlink()
        config = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_folder), "r": 2, "task_type": "CAUSAL_LM"}
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    canary = tmp_path / "ran"
    (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(UserError):
        load_model(ModelConfig(name=str(folder)))
    assert not canary.exists()


def test_no_pickle_of_a_foreign_checkpoint_is_loaded(
    tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped in its second epoch, whose checkpoint somebody else has filled with pickles."""
    tables = {
        "model": {"name": str(tiny_folder)},
        "data": {name: str(fact_files[name]) for name in ("forget", "retain")},
        "recipe": "npo",
        "train": {"epochs": 2, "lr": 1e-3},
        "evaluate": {"metrics": ["probability"], "samples": 0},
        "attacks": {"names": []},
    }
    run, out, canary = load_run(None, tables), tmp_path / "out", tmp_path / "ran"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("expunge.workflows.run.save_model", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(run, out)
    checkpoints = sorted((out / "work").glob("checkpoint-*"))
    assert checkpoints
    replaced = 0
    for checkpoint in checkpoints:
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            replaced += (checkpoint / name).is_file()
            torch.save(Bomb(canary), checkpoint / name)
    assert replaced
    with suppress(ExpungeError, pickle.UnpicklingError):
        execute(run, out, resume=True)
    assert not canary.exists()


def test_parquet_extension_types_are_data(tmp_path: Path) -> None:
    """The old Python extension type of Arrow carries a pickle in its metadata."""
    canary = tmp_path / "ran"
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(canary)),
    }
    fields = [pyarrow.field("question", pyarrow.string(), metadata=metadata), pyarrow.field("answer", pyarrow.string())]
    table = pyarrow.table({"question": ["Who?"], "answer": ["I."]}, schema=pyarrow.schema(fields))
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    (row,) = load_examples(DataSpec(name=str(tmp_path / "rows.parquet")))
    assert (row.question, row.answer) == ("Who?", "I.")
    assert not canary.exists()


def test_a_chat_template_cannot_leave_its_sandbox(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    canary = tmp_path / "ran"
    evil = "{{ cycler.__init__.__globals__.os.mkdir('" + str(canary) + "') }}"
    (folder / "chat_template.jinja").write_text(evil, encoding="utf-8")
    with pytest.raises((UserError, SecurityError)):
        load_model(ModelConfig(name=str(folder))).encoder.prompt("Who?")
    assert not canary.exists()


def test_shard_indexes_and_links_stay_in_their_folder(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    shutil.move(folder / "model.safetensors", tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(UserError, match="outside"):
        load_model(ModelConfig(name=str(folder)))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(UserError, match="outside"):
        load_model(ModelConfig(name=str(folder)))


def test_nothing_is_written_through_links_of_a_run_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "README.md").write_text("mine", encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir()
    (run / "record.json").write_text("{}", encoding="utf-8")
    (run / "model").symlink_to(elsewhere)
    (run / "diagnose").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"run/model: is a symbolic link"):
        attack_target(str(run))
    with pytest.raises(UserError, match=r"run/diagnose: is a symbolic link"):
        check_free(run / "diagnose", "layers")
    with pytest.raises(UserError, match="is a symbolic link"), claimed(run):
        pass
    assert [path.name for path in elsewhere.iterdir()] == ["README.md"]


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp/x", "..", "a/b"])
def test_names_of_methods_are_no_paths(tmp_path: Path, name: str) -> None:
    plan = {
        "summary": "s",
        "paper": "p",
        "run": {"recipe": "npo", "data": {"forget": "people:forget", "retain": "people:retain"}},
        "columns": {},
        "grid": {"key": "train.lr", "values": [1e-5]},
        "methods": {name: {}},
    }
    (tmp_path / "plan.toml").write_text(tomli_w.dumps(plan), encoding="utf-8")
    with pytest.raises(UserError, match="can hold no path"):
        load_reproduction(str(tmp_path / "plan.toml"))


def test_text_in_csv_is_no_formula() -> None:
    from expunge.core.records import Evaluation, Score

    score = Score(value=-0.5, reason="-1 rows")
    record = Evaluation(
        model='=HYPERLINK("http://x")',
        data={},
        scores={"+set": {"@metric": score}},
        aggregates={},
        kinds={},
    )
    (row,) = csv.DictReader(io.StringIO(as_csv([record])))
    assert (row["model"], row["set"], row["name"]) == ('\'=HYPERLINK("http://x")', "'+set", "'@metric")
    assert row["reason"] == "'-1 rows"
    assert float(row["value"]) == -0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 50_000 + "]" * 50_000, "nested too deeply"),
        ("seed = " + "9" * 5_000, "not TOML"),
        ("#" + "x" * 10_000_001, "larger than 10 MB"),
    ],
)
def test_files_that_only_cost_time_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_toml(tmp_path / "run.toml")


def test_permissions_end_with_their_block_and_add_up() -> None:
    from expunge.core.permission import check_class, check_endpoint

    with granted({"forget": {"name": "a.b:C"}}):
        check_class("forget", "a.b:C")
        with granted(endpoints=["Example.org"]):
            check_class("forget", "a.b:C")
            check_endpoint("judge", "https://example.org/v1", "OPENAI_API_KEY")
            check_endpoint("judge", "https://EXAMPLE.org:8443/v1", "OPENAI_API_KEY")
            with pytest.raises(UserError, match=r"--allow-endpoint evil\.example\.org:443"):
                check_endpoint("judge", "https://evil.example.org/v1", "OPENAI_API_KEY")
        with pytest.raises(UserError, match=r"--allow-endpoint example\.org:443"):
            check_endpoint("judge", "https://example.org/v1", "OPENAI_API_KEY")
    with pytest.raises(UserError, match="--trust"):
        check_class("forget", "a.b:C")
