"""The Python interface: the same runs from paths, rows, data sets and loaded models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import expunge
from expunge.core.errors import UserError
from expunge.evaluate.base import EvaluateConfig

Rows = list[dict[str, Any]]

QUICK: dict[str, Any] = {
    "recipe": "simnpo",
    "train": {"epochs": 2, "lr": 1e-3},
    "evaluate": {"metrics": ["probability", "keyword_recall", "sample_leak"], "samples": 2, "max_new_tokens": 16},
}


def _numbers(result: Any) -> Any:
    return {
        stage: {s: {m: v.model_dump() for m, v in ms.items()} for s, ms in x.items()} for stage, x in result.items()
    }


@pytest.fixture(scope="module")
def by_path(tiny_folder: Path, fact_files: dict[str, Path]) -> expunge.Unlearned:
    """A run from paths, in a directory of its own making."""
    return expunge.unlearn(
        tiny_folder, forget=fact_files["forget"], retain=str(fact_files["retain"]), neighbour=None, **QUICK
    )


def test_unlearned_model_is_ready_to_use(by_path: expunge.Unlearned, tmp_path: Path) -> None:
    prompt = by_path.tokenizer("Who?", return_tensors="pt")
    assert by_path.model.generate(**prompt, max_new_tokens=2).shape[1] <= prompt["input_ids"].shape[1] + 2
    assert by_path.scores["before"]["forget"]["keyword_recall"].value == 1.0
    assert (
        by_path.scores["after"]["forget"]["probability"].value < by_path.scores["before"]["forget"]["probability"].value
    )
    assert by_path.report(tmp_path / "page.html").read_bytes() == (by_path.run_dir / "report.html").read_bytes()
    assert by_path.verdict.endswith(".")
    assert "\n" not in by_path.verdict


def test_tables_are_those_of_the_run_file(by_path: expunge.Unlearned) -> None:
    config = by_path.record.config
    assert config["recipe"] == "simnpo"
    assert config["train"]["epochs"] == by_path.record.num_epochs == 2
    assert config["evaluate"]["temperature"] == 1.0


def test_own_data_does_not_inherit_the_demos_report(by_path: expunge.Unlearned) -> None:
    """The demo may print its public facts; a user's forget rows stay hidden, and all of them are measured."""
    assert by_path.record.config["report"]["show_forget_text"] is False
    assert by_path.record.config["evaluate"]["max_rows"] == EvaluateConfig().max_rows


def test_rows_data_sets_and_paths_give_the_same_run(
    by_path: expunge.Unlearned, tiny_folder: Path, facts: dict[str, Rows], tmp_path: Path
) -> None:
    import datasets

    forget, retain = facts["forget"], datasets.Dataset.from_list(facts["retain"])
    out = tmp_path / "run"
    given = expunge.unlearn(str(tiny_folder), forget=forget, retain=retain, out=out, **QUICK)
    assert given.run_dir == out
    assert _numbers(given.scores) == _numbers(by_path.scores)
    assert given.record.data["forget"].sha256 == by_path.record.data["forget"].sha256
    assert "given from Python" in given.record.data["retain"].source
    with pytest.raises(UserError, match="already finished"):
        expunge.unlearn(str(tiny_folder), forget=forget, retain=retain, out=out, **QUICK)


def test_loaded_model_is_changed_in_place(
    by_path: expunge.Unlearned, tiny_folder: Path, fact_files: dict[str, Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    files = {"forget": fact_files["forget"], "retain": fact_files["retain"]}
    with pytest.raises(UserError, match="tokenizer"):
        expunge.unlearn(model, **files, **QUICK)
    result = expunge.unlearn(model, tokenizer=tokenizer, **files, **QUICK)
    assert result.model is model
    assert _numbers(result.scores) == _numbers(by_path.scores)
    after = expunge.measure(model, files, tokenizer=tokenizer, config=EvaluateConfig(**QUICK["evaluate"]))
    assert after.scores == result.scores["after"]


def test_evaluate_agrees_with_the_run(
    by_path: expunge.Unlearned, tiny_folder: Path, fact_files: dict[str, Path]
) -> None:
    data = {"forget": fact_files["forget"], "retain": fact_files["retain"]}
    found = expunge.measure(tiny_folder, data, config=EvaluateConfig(**QUICK["evaluate"]))
    assert found.scores == by_path.scores["before"]
    assert found.data["forget"].sha256 == by_path.record.data["forget"].sha256
    assert found.model == str(tiny_folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": []}, "forget: no rows"),
        ({"forget": ["Who?"]}, r"forget\[0\]: expected a dict"),
        ({"forget": [{"question": "Who?"}]}, r"forget\[0\]: no field 'answer'"),
        ({"forget": [{"question": "Who?", "answer": ""}]}, "'answer' is empty"),
        ({"forget": "nowhere.jsonl"}, "no such file"),
        ({"retain": [{"question": "  WHO?", "answer": "I."}]}, "also in data.forget"),
        ({"recipe": "nppo"}, "did you mean npo"),
        ({"train": {"epoch": 3}}, "unknown key 'train.epoch'; did you mean epochs"),
        ({"trian": {"epochs": 3}}, "unknown key 'trian'"),
        ({"seed": -1}, "seed"),
        ({"settings": ["forget.name=npo", "forget.betta=1"]}, "forget.betta"),
        ({"model": "smolm2-135m"}, "did you mean smollm2-135m"),
    ],
)
def test_mistakes_are_user_errors_and_write_nothing(
    tiny_folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {
        "model": tiny_folder,
        "forget": [{"question": "Who?", "answer": "I."}],
        "retain": [{"question": "When?", "answer": "Now."}],
        "out": tmp_path / "out",
    }
    with pytest.raises(UserError, match=message):
        expunge.unlearn(**{**given, **changes})
    assert not (tmp_path / "out").exists()


def test_mistakes_of_evaluate_are_user_errors(tiny_folder: Path, fact_files: dict[str, Path]) -> None:
    data = {"forget": fact_files["forget"]}
    for options, message in (
        ({"data": {"forgot": fact_files["forget"]}}, "no split 'forgot'; did you mean forget"),
        ({"model_config": {"template": "chta"}}, "model.template"),
        ({"model_config": {"tempalte": "plain"}}, "model.tempalte"),
        ({"config": EvaluateConfig(metrics=("probabilty",))}, "did you mean probability"),
    ):
        with pytest.raises(UserError, match=message):
            expunge.measure(**{"model": tiny_folder, "data": data, **options})


def test_public_names() -> None:
    """`expunge.evaluate` is a package too; loading it must not hide the function."""
    import expunge.evaluate.score

    assert expunge.evaluate.score.BOOTSTRAP_DRAWS > 0
    assert all(callable(getattr(expunge, name)) for name in expunge.__all__)
    assert dir(expunge) == sorted(expunge.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        expunge.nothing  # noqa: B018
