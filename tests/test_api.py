"""The Python interface: the same runs from paths, rows, data sets and loaded models."""

from __future__ import annotations

import copy
import gc
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import expunge
from expunge.core.errors import UserError
from expunge.evaluate.config import EvaluateConfig

Rows = list[dict[str, Any]]

QUICK: dict[str, Any] = {
    "recipe": "simnpo",
    "train": {"epochs": 2, "lr": 1e-3},
    "evaluate": {"metrics": ["probability", "keyword_recall", "sample_leak"], "samples": 2, "max_new_tokens": 16},
}
FAST: dict[str, Any] = {
    "recipe": "simnpo",
    "train": {"epochs": 1, "lr": 1e-3},
    "evaluate": {"metrics": ["probability", "keyword_recall"], "samples": 0, "max_new_tokens": 16},
    "attacks": {"names": []},
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

    assert expunge.evaluate.score.FOLDER
    assert all(callable(getattr(expunge, name)) for name in expunge.__all__)
    assert dir(expunge) == sorted(expunge.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        expunge.nothing  # noqa: B018


@pytest.fixture
def lent_model(tiny_folder: Path) -> Any:
    """A loaded model in its caller's state: train mode but for a block, a frozen weight, a gradient, a hook."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).train()
    model.model.layers[1].eval()
    frozen, moving = model.model.norm.weight, model.model.layers[0].mlp.down_proj.weight
    frozen.requires_grad_(False)
    moving.grad = torch.ones_like(moving)
    model.model.layers[2].register_forward_hook(lambda *_: None)
    return model


def _state(model: Any) -> dict[str, Any]:
    """Everything of a model but its weights."""
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "modules": [type(module).__name__ for module in model.modules()],
        "trainable": {name: weight.requires_grad for name, weight in model.named_parameters()},
        "dtypes": {name: weight.dtype for name, weight in model.named_parameters()},
        "gradients": {n: None if w.grad is None else w.grad.sum().item() for n, w in model.named_parameters()},
        "hooks": {name: len(module._forward_hooks) for name, module in model.named_modules()},
        "forwards": [name for name, module in model.named_modules() if "forward" in vars(module)],
        "attributes": sorted(vars(model)),
        "use_cache": model.config.use_cache,
    }


def _random_numbers() -> tuple[Any, ...]:
    return random.random(), float(np.random.rand()), torch.rand(2).tolist()


def test_a_lent_model_comes_back_as_it_was(
    lent_model: Any, facts: dict[str, Rows], words: PreTrainedTokenizerFast
) -> None:
    """After a run that trains two of its blocks, and after a measurement; so do the random generators."""
    before = _state(lent_model)
    weights = {name: weight.detach().clone() for name, weight in lent_model.named_parameters()}
    rows = {"forget": facts["forget"], "retain": facts["retain"]}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = _random_numbers()
    for put, state in zip((random.setstate, np.random.set_state, torch.set_rng_state), states, strict=True):
        put(state)  # type: ignore[operator]
    expunge.measure(lent_model, rows, tokenizer=words, config=FAST["evaluate"])
    assert _state(lent_model) == before
    assert all(torch.equal(weight, weights[name]) for name, weight in lent_model.named_parameters())
    with torch.no_grad():  # a caller's own block must not switch training off
        result = expunge.unlearn(
            lent_model, tokenizer=words, **rows, **FAST, localize={"name": "layers", "layers": [0, 1]}
        )
    assert _random_numbers() == expected
    assert _state(lent_model) == before
    changed = {name for name, weight in lent_model.named_parameters() if not torch.equal(weight, weights[name])}
    assert changed == set(result.record.selection.names) & changed
    assert changed
    saved = AutoModelForCausalLM.from_pretrained(result.run_dir / "model")
    for name, weight in saved.named_parameters():
        assert torch.equal(weight, lent_model.get_parameter(name)), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget": {"layer": 99}, "recipe": "rmu"}, "99"),
        ({"settings": ["model.adapter=lora"], "fails": True}, "stopped here"),
        ({"dtype": torch.bfloat16, "fails": True}, "stopped here"),
    ],
)
def test_after_a_failure_the_weights_are_back_too(
    lent_model: Any,
    facts: dict[str, Rows],
    words: PreTrainedTokenizerFast,
    options: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A refusal that comes late, and an error after training, with and without an adapter; no folder is left."""
    lent_model.to(options.get("dtype", torch.float32))
    before = _state(lent_model)
    weights = {name: weight.detach().clone() for name, weight in lent_model.named_parameters()}
    slots = {"forget": options["forget"]} if "forget" in options else {}
    more = {key: value for key, value in options.items() if key not in ("fails", "forget", "dtype")}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError("stopped here")

    if "fails" in options:
        monkeypatch.setattr("expunge.workflows.run.save_model", stop)
    with pytest.raises((UserError, RuntimeError), match=message) as raised:
        expunge.unlearn(
            lent_model,
            tokenizer=words,
            forget=facts["forget"],
            retain=facts["retain"],
            slots=slots,
            **{**FAST, "train": {"epochs": 1, "lr": 1e-3}, **more},
        )
    del raised
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert _state(lent_model) == before
    assert all(torch.equal(weight, weights[name]) for name, weight in lent_model.named_parameters())


def test_without_room_for_a_copy_the_error_says_so(
    lent_model: Any, facts: dict[str, Rows], words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.models.caller_state.free_memory", lambda device: 0.0)
    rows = {"forget": facts["forget"], "retain": facts["retain"]}
    with pytest.raises(UserError, match=r"99.*weights may have changed: load it again"):
        expunge.unlearn(lent_model, tokenizer=words, **rows, recipe="rmu", slots={"forget": {"layer": 99}})


def test_a_temporary_directory_goes_with_the_result(
    tiny_folder: Path, facts: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy keeps it; a pickled result has its numbers without it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = expunge.unlearn(tiny_folder, forget=facts["forget"], retain=facts["retain"], **FAST)
    assert (result.run_dir / "model" / "config.json").is_file()
    restored = pickle.loads(pickle.dumps(result))
    assert restored.record == result.record
    copied = copy.deepcopy(result)
    del result
    gc.collect()
    assert copied.report(tmp_path / "page.html").is_file()
    del copied
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(UserError, match="is gone; give `out`"):
        restored.report(tmp_path / "again.html")


class _Nothing:
    """An object that is nothing in particular."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model: expected a name, a path or a loaded causal language model, got None"),
        ({"model": _Nothing}, "model: got the class _Nothing; load a model"),
        ({"model": _Nothing()}, "model: expected a name, a path or a loaded causal language model, got _Nothing"),
        ({"model": torch.nn.Linear(2, 2)}, "loaded causal language model, got Linear"),
        ({"model": ""}, "model: is empty"),
        ({"forget": None}, "forget: name the rows"),
        ({"retain": None}, "retain: name the rows"),
        ({"forget": 5}, "forget: expected rows, found int"),
        ({"forget": {"limit": 5}}, "forget: expected"),
        ({"settings": [5]}, "settings: expected strings"),
        ({"settings": 5}, "settings: expected strings"),
        ({"data": 5}, "data: expected a dict of options, got 5"),
        ({"data": {"forget": "people:forget"}}, "data.forget: forget is given twice"),
        ({"data": {"forget": {"subset": "x"}}}, "data.forget.subset: means nothing for rows"),
        ({"data": {"forget": {"fields": {"answer": "reply"}}}}, "no field 'reply'"),
        ({"slots": {"forgot": "npo"}}, "slots: no slot 'forgot'; did you mean forget"),
        ({"slots": {"combine": "orthogonal"}, "combine": "orthogonal"}, "slots.combine: is given as a table too"),
        ({"slots": 5}, "slots: expected a dict"),
        ({"out": 5}, "out: expected a path, got 5"),
        ({"out": ""}, "out: expected a path"),
        ({"progress": 5}, "progress: expected"),
        ({"seed": "x"}, "seed: expected an integer, got 'x'"),
        ({"seed": 1.5}, "seed: expected an integer"),
        ({"seed": True}, "seed: expected an integer"),
        ({"recipe": 5}, "recipe: expected a name"),
        ({"train": 5}, "train"),
    ],
)
def test_arguments_of_another_type_are_user_errors(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "model": "smollm2-135m",
        "forget": [{"question": "Who?", "answer": "I."}],
        "retain": [{"question": "When?", "answer": "Now."}],
        "out": tmp_path / "out",
    }
    with pytest.raises(UserError) as refused:
        expunge.unlearn(**{**given, **changes})
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model: expected"),
        ({"data": 5}, "data: expected split -> rows"),
        ({"data": {}}, "data: expected split -> rows"),
        ({"data": "people:forget"}, "data: expected split -> rows"),
        ({"data": {"forget": None}}, "forget: expected rows, a name or a path, got None"),
        ({"seed": "x"}, "seed: expected an integer"),
        ({"config": 5}, "config: expected a dict of options"),
        ({"config": {"sample": 5}}, "config.sample'; did you mean samples"),
        ({"model_config": 5}, "model_config: expected a dict of options"),
        ({"original": 5}, "original: expected"),
        ({"reference": _Nothing}, "reference: got the class"),
        ({"progress": 5}, "progress: expected"),
    ],
)
def test_arguments_of_measure_of_another_type(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"model": "smollm2-135m", "data": {"forget": [{"question": "Who?", "answer": "I."}]}}
    with pytest.raises(UserError) as refused:
        expunge.measure(**{**given, **changes})
    assert message in str(refused.value)


def test_tokenizers_of_another_type(lent_model: Any) -> None:
    for tokenizer in (5, "smollm2-135m", PreTrainedTokenizerFast):
        with pytest.raises(UserError, match="tokenizer: expected a loaded tokenizer"):
            expunge.measure(lent_model, {"forget": [{"question": "Who?", "answer": "I."}]}, tokenizer=tokenizer)


def test_splits_tables_and_numbers_as_callers_have_them(
    tiny_folder: Path, facts: dict[str, Rows], fact_files: dict[str, Path]
) -> None:
    """Another name for a field and a limit beside rows; holdout in `data`; slots as tables; numpy and tuples."""
    renamed = [{"q": row["question"], **{k: v for k, v in row.items() if k != "question"}} for row in facts["forget"]]
    renamed[0] |= {"keywords": tuple(renamed[0]["keywords"]), "id": np.int64(77)}
    renamed[1] |= {"keywords": set(renamed[1]["keywords"])}
    result = expunge.unlearn(
        tiny_folder,
        forget=renamed,
        retain={"name": str(fact_files["retain"]), "limit": 6},
        holdout=fact_files["neighbour"],
        data={"forget": {"limit": 4, "fields": {"question": "q"}}, "general": [{"question": "Who?", "answer": "I."}]},
        slots={"forget": {"name": "npo", "beta": 0.25}, "retain": "nll"},
        seed=np.int64(3),
        **{**FAST, "train": {"epochs": np.int64(1), "lr": np.float64(1e-3)}},
    )
    record = result.record
    assert {name: data.rows for name, data in record.data.items()} == {
        "forget": 4,
        "retain": 6,
        "holdout": 8,
        "general": 1,
    }
    assert record.config["forget"] == {"name": "npo", "beta": 0.25}
    assert record.config["seed"] == 3
    assert result.scores["before"]["forget"]["keyword_recall"].value == 1.0
