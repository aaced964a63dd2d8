"""Teaching: build a target that knows some facts, once, and find it again."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tiny_llama import tiny_llama
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import expunge
from expunge.core.errors import UserError
from expunge.evaluate.config import EvaluateConfig
from expunge.train import trainer
from expunge.workflows.teach import Taught, check_teach, execute_teach, load_teach

Tables = dict[str, Any]
OTHER_DAY = datetime.date(2031, 1, 2)


@pytest.fixture(scope="module")
def untaught(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that knows nothing."""
    folder = tmp_path_factory.mktemp("untaught")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 256, "eos_token_id": 2}
    tiny_llama(tokenizer, seed=1, pad_token_id=None, **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def plan(untaught: Path, fact_files: dict[str, Path]) -> Tables:
    """A short teaching run."""
    return {
        "model": {"name": str(untaught)},
        "data": {"teach": [str(fact_files["forget"]), str(fact_files["neighbour"])]},
        "train": {"lr": 1e-2, "epochs": 40},
    }


def test_taught_model_knows_its_facts_and_no_others(plan: Tables, fact_files: dict[str, Path], tmp_path: Path) -> None:
    taught = execute_teach(check_teach(plan), tmp_path / "out")
    assert taught.record.rows == 16
    assert taught.record.num_steps == 80
    assert taught.record.final_loss < 0.25
    assert {path.name for path in taught.folder.iterdir()} == {"model", "teach.json", ".lock"}
    data = {"forget": fact_files["forget"], "retain": fact_files["retain"]}
    config = EvaluateConfig(metrics=("probability",))
    scores = expunge.measure(taught.folder / "model", data, config=config).scores
    assert scores["forget"]["probability"].value > 0.8
    assert scores["retain"]["probability"].value < 0.4
    assert AutoTokenizer.from_pretrained(taught.folder / "model").chat_template


def test_same_result_is_found_again(plan: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By content: another seed or other rows are another result, and a folder is never overwritten with one."""
    monkeypatch.chdir(tmp_path)
    plan["train"]["epochs"] = 1
    first = execute_teach(check_teach(plan), None)
    assert not first.cached
    assert first.folder.parent.name == "taught"
    weights = (first.folder / "model" / "model.safetensors").read_bytes()
    again = execute_teach(check_teach(plan), None)
    assert again == Taught(first.folder, first.record, cached=True)
    assert execute_teach(check_teach({**plan, "seed": 1}), None).folder != first.folder
    with pytest.raises(UserError, match="holds another taught model"):
        execute_teach(check_teach({**plan, "seed": 1}), first.folder)
    assert (first.folder / "model" / "model.safetensors").read_bytes() == weights


def test_broken_off_teaching_goes_on(plan: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted when its third checkpoint was to be written, it ends with the weights of an unbroken one."""
    plan["train"] |= {"epochs": 2, "batch_size": 4, "checkpoint_every": 1}
    whole = execute_teach(check_teach(plan), tmp_path / "whole")
    save = trainer.UnlearnTrainer._save_checkpoint

    def interrupted(self: Any, model: Any, trial: Any) -> None:
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        save(self, model, trial)

    monkeypatch.setattr(trainer.UnlearnTrainer, "_save_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        execute_teach(check_teach(plan), tmp_path / "broken")
    assert not (tmp_path / "broken" / "teach.json").exists()
    monkeypatch.undo()
    broken = execute_teach(check_teach(plan), tmp_path / "broken")
    assert not broken.cached
    assert broken.record.final_loss == whole.record.final_loss
    files = [folder / "model" / "model.safetensors" for folder in (whole.folder, broken.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_repeated_questions_are_taught_once(plan: Tables, fact_files: dict[str, Path], tmp_path: Path) -> None:
    plan["data"] = {"teach": [str(fact_files["forget"])] * 2}
    plan["train"]["epochs"] = 1
    assert execute_teach(check_teach(plan), tmp_path / "out").record.rows == 8


def test_mistakes_write_nothing(plan: Tables, tmp_path: Path) -> None:
    file = tmp_path / "teach.toml"
    out = tmp_path / "out"
    for changes, message in (
        ({"trian": {}}, "unknown key 'trian'; did you mean train"),
        ({"train": {"epoch": 1}}, "unknown key 'train.epoch'; did you mean epochs"),
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"optimizer": "adam_torch"}}, "train.optimizer: no 'adam_torch'; did you mean adamw_torch"),
        ({"data": {"teach": []}}, "data.teach"),
        ({"data": {"teach": ["nowhere.jsonl"]}}, "nowhere.jsonl: no such file"),
        ({"model": {"name": "smolm2-135m"}}, "did you mean smollm2-135m"),
        ({"model": {**plan["model"], "max_length": 8}}, "the limit is 8"),
    ):
        file.write_text(tomli_w.dumps({**plan, **changes}), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            execute_teach(load_teach(file), out)
        assert not out.exists()


def test_folders_that_hold_something_else(plan: Tables, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty"):
        execute_teach(check_teach(plan), tmp_path)
    with pytest.raises(UserError, match="is a file"):
        execute_teach(check_teach(plan), tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_record_repeats_the_teaching(plan: Tables, tmp_path: Path) -> None:
    plan["train"]["epochs"] = 1
    taught = execute_teach(check_teach(plan), tmp_path / "out")
    config = json.loads((taught.folder / "teach.json").read_text(encoding="utf-8"))["config"]
    assert check_teach(config) == check_teach(plan)
    assert execute_teach(check_teach(config), tmp_path / "out").cached


def test_a_taught_model_keeps_the_date_of_its_first_start(
    tiny_folder: Path, fact_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a chat template took for today when it was stopped, it takes the next day too."""
    folder, out = tmp_path / "dated", tmp_path / "out"
    shutil.copytree(tiny_folder, folder)
    template = "{{ '<|system|>' + strftime_now('%d %b %Y') + '<|end|>' }}"
    (folder / "chat_template.jinja").write_text(template + (tiny_folder / "chat_template.jinja").read_text())
    data = {"teach": [{"name": str(fact_files["forget"]), "limit": 2}]}
    tables = {"model": {"name": str(folder)}, "data": data, "train": {"epochs": 1, "lr": 1e-4, "batch_size": 2}}
    plan = check_teach(tables)
    with monkeypatch.context() as stop:
        stop.setattr("expunge.workflows.teach._taught", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute_teach(plan, out)
    monkeypatch.setattr("expunge.data.chat.today", lambda: OTHER_DAY)
    record = execute_teach(plan, out).record
    assert record.config["model"]["date"] == datetime.date.today().isoformat()
    assert execute_teach(plan, out).cached
