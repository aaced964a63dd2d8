"""Files from others: no code runs, no row and no secret leaves, unless the command line says so."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from expunge.core.toml import read_toml

EVIL = "from pathlib import Path\nPath({canary!r}).write_text('ran')\nX = object\n"
LOSS = (
    "from my_helper_for_trust import NPO as Base\n"
    'class MyLoss(Base):\n    """A user\'s own loss: NPO under another name."""\n'
)
SECRET = "AKIA-secret-of-the-test"

Tables = dict[str, Any]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that appears when `evil_for_trust`, a module in the working folder, is imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "evil_for_trust.py").write_text(EVIL.format(canary=str(tmp_path / "ran")), encoding="utf-8")
    monkeypatch.chdir(folder)
    yield tmp_path / "ran"
    for name in ("evil_for_trust", "my_loss_for_trust", "my_helper_for_trust"):
        sys.modules.pop(name, None)


@pytest.fixture
def tables(tiny_folder: Path, fact_files: dict[str, Path]) -> Tables:
    """A run file of the tiny model."""
    return {
        "recipe": "npo",
        "model": {"name": str(tiny_folder)},
        "data": {name: str(fact_files[name]) for name in ("forget", "retain")},
        "train": {"epochs": 1},
        "evaluate": {"metrics": ["probability"], "samples": 0},
        "attacks": {"names": []},
    }


def _with(tables: Tables, path: str, value: Any) -> Tables:
    """The tables with one more value at a dotted path."""
    changed = json.loads(json.dumps(tables))
    *parents, last = path.split(".")
    place = changed
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return changed


def _write(path: str, tables: Tables) -> Path:
    Path(path).write_text(tomli_w.dumps(tables), encoding="utf-8")
    return Path(path)


def _refused(outcome: Any, *parts: str) -> None:
    """Exit code 2, and one line that names all of `parts`."""
    assert outcome.code == 2, (outcome.out, outcome.err)
    assert len(outcome.err.strip().splitlines()) == 1, outcome.err
    for part in parts:
        assert part in outcome.err, (part, outcome.err)


NAMED = [
    ("forget.name", "evil_for_trust:X"),
    ("retain", "evil_for_trust:X"),
    ("localize.name", "evil_for_trust:X"),
    ("train.optimizer", "evil_for_trust:X"),
    ("evaluate.metrics", ["probability", "evil_for_trust:X"]),
    ("evaluate.set_metrics", ["evil_for_trust:X"]),
    ("evaluate.options", {"evil_for_trust:X": {}}),
    ("attacks.names", ["evil_for_trust:X"]),
    ("attacks.options", {"evil_for_trust:X": {}}),
]


@pytest.mark.parametrize(("key", "value"), NAMED)
def test_a_run_file_imports_nothing(expunge: Any, canary: Path, tables: Tables, key: str, value: Any) -> None:
    file = _write("their.toml", _with(tables, key, value))
    _refused(expunge("run", file, "--out", "out", "--quiet"), "their.toml (", key, "evil_for_trust:X", "--trust")
    assert not canary.exists()
    assert not Path("out").exists()


def test_a_loss_that_builds_on_another_imports_nothing(expunge: Any, canary: Path, tables: Tables) -> None:
    table = {"name": "belief_sequence", "base": "evil_for_trust:X"}
    file = _write("their.toml", _with(tables, "forget", table))
    _refused(expunge("run", file, "--out", "out"), "their.toml (forget.base)", "--trust")
    assert not canary.exists()


def test_a_recipe_file_imports_nothing(expunge: Any, canary: Path, tables: Tables) -> None:
    recipe = {"forget": "evil_for_trust:X", "retain": "nll", "combine": "weighted_sum", "localize": "everything"}
    _write("their_recipe.toml", recipe)
    file = _write("run.toml", {**tables, "recipe": "their_recipe.toml"})
    _refused(expunge("run", file, "--out", "out"), "their_recipe.toml (forget)", "--trust")
    assert not canary.exists()


def test_code_of_a_model_runs_for_no_run_file(expunge: Any, canary: Path, tables: Tables) -> None:
    file = _write("their.toml", _with(tables, "model.trust_remote_code", True))
    _refused(expunge("run", file, "--out", "out"), "their.toml (model.trust_remote_code)", "--trust")
    assert not Path("out").exists()


COMMANDS = {
    "sweep": (
        ["diagnose", "layers", "FILE", "--out", "out", "--quiet"],
        lambda run: _with(run, "evaluate.set_metrics", ["evil_for_trust:X"]),
        "evaluate.set_metrics",
    ),
    "squeeze": (["diagnose", "squeeze", "FILE", "--out", "out"], lambda run: run, "forget.name"),
    "continual": (
        ["continual", "FILE", "--out", "out"],
        lambda run: {**run, "data": {"retain": run["data"]["retain"], "requests": [run["data"]["forget"]] * 2}},
        "forget.name",
    ),
    "teach": (
        ["teach", "FILE", "--out", "out"],
        lambda run: {
            "model": run["model"],
            "data": {"teach": [run["data"]["forget"]]},
            "train": {"optimizer": "evil_for_trust:X"},
        },
        "train.optimizer",
    ),
    "reproduce": (
        ["reproduce", "FILE", "--out", "out"],
        lambda run: {
            "summary": "s",
            "paper": "p",
            "run": run,
            "columns": {},
            "grid": {"key": "train.lr", "values": [1e-5]},
            "methods": {"m": {}},
        },
        "run.forget.name",
    ),
    "suite": (
        ["eval", "MODEL", "--suite", "FILE", "--out", "out"],
        lambda run: {"sets": {"s": {"role": "forget", "data": run["data"]["forget"], "metrics": ["evil_for_trust:X"]}}},
        "sets.s.metrics",
    ),
    "meta-eval": (
        ["meta-eval", "FILE", "--out", "out"],
        lambda run: {
            "data": run["data"],
            "models": [{"path": run["model"]["name"], "knows": True}],
            "evaluate": {"metrics": ["evil_for_trust:X"]},
        },
        "evaluate.metrics",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_file_of_any_command_imports_anything(expunge: Any, canary: Path, tables: Tables, name: str) -> None:
    arguments, build, key = COMMANDS[name]
    file = _write("their.toml", build(_with(tables, "forget.name", "evil_for_trust:X")))
    words = {"FILE": str(file), "MODEL": tables["model"]["name"]}
    _refused(expunge(*(words.get(word, word) for word in arguments)), f"their.toml ({key}", "evil_for_trust:X")
    assert not canary.exists()
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["teach", "suite", "meta-eval"])
def test_no_file_of_any_command_runs_code_of_a_model(
    expunge: Any, canary: Path, tables: Tables, tiny_folder: Path, name: str
) -> None:
    """The model's own code would be run from `modeling.py` beside its weights."""
    model = _model_with_code(tiny_folder, canary)
    arguments, build, _ = COMMANDS[name]
    asking = json.loads(json.dumps(build(_with(tables, "model.name", str(model)))).replace("evil_for_trust:X", ""))
    asking = {**asking, "model": {**asking.get("model", {}), "trust_remote_code": True}}
    if name == "teach":
        asking["train"] = {}
    elif name == "suite":
        asking["sets"]["s"]["metrics"] = ["probability"]
    else:
        asking["evaluate"]["metrics"] = ["probability"]
    words = {"FILE": str(_write("their.toml", asking)), "MODEL": str(model)}
    outcome = expunge(*(words.get(word, word) for word in arguments))
    _refused(outcome, "their.toml (model.trust_remote_code)", "--trust")
    assert not canary.exists()


def _model_with_code(tiny_folder: Path, canary: Path) -> Path:
    """The tiny model with an `auto_map` to code that writes the canary."""
    model = Path(shutil.copytree(tiny_folder, "model_with_code"))
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "modeling.py").write_text(EVIL.format(canary=str(canary)), encoding="utf-8")
    return model


@pytest.fixture
def foreign(canary: Path, finished: Any) -> Path:
    """A finished run's directory from somebody else."""
    return Path(shutil.copytree(finished.folder, "foreign"))


def _ask(folder: Path, path: str, value: Any) -> None:
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    changed = _with(record, path, value)
    (folder / "record.json").write_text(json.dumps(changed), encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["attack", "foreign", "--attack", "sampling"], "config.forget.name", "evil_for_trust:X"),
        (["attack", "foreign", "--attack", "sampling"], "config.model.trust_remote_code", True),
        (["diagnose", "alignment", "foreign"], "config.forget.name", "evil_for_trust:X"),
        (["diagnose", "alignment", "foreign"], "config.model.trust_remote_code", True),
    ],
)
def test_a_run_directory_runs_no_code(
    expunge: Any, canary: Path, foreign: Path, arguments: list[str], path: str, value: Any
) -> None:
    """Its model has code of its own, too, and its record asks for it."""
    model = foreign / "model"
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "modeling.py").write_text(EVIL.format(canary=str(canary)), encoding="utf-8")
    _ask(foreign, path, value)
    _refused(expunge(*arguments), f"record.json ({path})", "--trust")
    assert not canary.exists()
    assert not (foreign / "diagnose").exists()


def test_metrics_of_a_foreign_record_are_not_imported(expunge: Any, canary: Path, foreign: Path) -> None:
    """`compare` needs the metric's class, and says so; `report` needs none."""
    import pyarrow.parquet as parquet

    for stage in ("before", "after"):
        record = json.loads((foreign / "record.json").read_text(encoding="utf-8"))
        scores = record[stage]["forget"]
        _ask(foreign, f"{stage}.forget", {**scores, "evil_for_trust:X": scores["probability"]})
    table = parquet.read_table(foreign / "items.parquet")
    column = table.column("probability")
    parquet.write_table(table.append_column("evil_for_trust:X", column), foreign / "items.parquet")
    _refused(expunge("compare", "foreign"), "record.json (before.forget.evil_for_trust:X)", "--trust")
    assert expunge("report", "foreign").code == 0
    assert not canary.exists()


@pytest.fixture
def own(canary: Path) -> str:
    """A user's loss in the working folder, which imports a module beside it."""
    Path("my_helper_for_trust.py").write_text("from expunge.forget.npo import NPO\n", encoding="utf-8")
    Path("my_loss_for_trust.py").write_text(LOSS, encoding="utf-8")
    return "my_loss_for_trust:MyLoss"


def test_a_users_own_loss_that_is_typed(expunge: Any, tables: Tables, own: str) -> None:
    """Typed: it runs, from the working folder, and is not put on the path for good. The run goes on with --trust."""
    file = _write("mine.toml", tables)
    named = f"forget.name={own}"
    assert expunge("run", file, "--set", named, "--out", "out", "--quiet").code == 0
    assert str(Path.cwd()) not in sys.path
    assert read_toml(Path("out/run.toml"))["forget"]["name"] == own
    Path("out/report.html").unlink()
    _refused(expunge("run", "--resume", "--out", "out", "--quiet"), "run.toml (forget.name)", own, "--trust")
    again = expunge("run", "--resume", "--out", "out", "--quiet", "--trust")
    assert again.code == 0, again.err
    assert again.err.count(own) == 1, "what is trusted is listed, once"
    assert Path("out/report.html").is_file()
    assert expunge("run", "--resume", "--out", "out", "--quiet", "--set", named).code == 0


def test_only_what_is_typed_is_allowed(expunge: Any, canary: Path, tables: Tables, own: str) -> None:
    """A typed class allows no other one of the file."""
    file = _write("mixed.toml", _with(tables, "retain", "evil_for_trust:X"))
    outcome = expunge("run", file, "--set", f"forget.name={own}", "--out", "out")
    _refused(outcome, "mixed.toml (retain)", "evil_for_trust:X")
    assert not canary.exists()


def test_data_that_is_typed_is_no_class(expunge: Any, canary: Path, tables: Tables) -> None:
    file = _write("their.toml", _with(tables, "forget.name", "evil_for_trust:X"))
    outcome = expunge("run", file, "--set", "data.general=evil_for_trust:X", "--out", "out")
    _refused(outcome, "their.toml (forget.name)")
    assert not canary.exists()


def _judged(tables: Tables, url: str, **options: Any) -> Tables:
    judges = {"judges": [{"model": "m", "endpoint": url, **options}]}
    asked = _with(tables, "evaluate.metrics", ["probability", "judged_naturalness"])
    return _with(asked, "evaluate.options", {"judged_naturalness": judges})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A judge on this machine that counts what it is asked."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "evaluate")
    from stub_judge import Stub

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MY_API_KEY", "sk-mine")
    stub = Stub()
    yield stub
    stub.close()


def test_no_row_leaves_for_an_endpoint_of_a_run_file(
    expunge: Any, canary: Path, tables: Tables, server: Any, fact_files: dict[str, Path]
) -> None:
    """Nor a secret of the environment: even where the host is allowed, a file may only name an API key."""
    host = server.url.removeprefix("http://").removesuffix("/v1")
    run = ("run", _write("their.toml", _judged(tables, server.url)), "--out", "out")
    _refused(expunge(*run), "their.toml (evaluate.options.judged_naturalness.judges.0.endpoint)", host)
    _refused(expunge(*run, "--allow-endpoint", "example.org"), f"--allow-endpoint {host}")
    _refused(expunge(*run, "--allow-endpoint", "127.0.0.1:1"), f"--allow-endpoint {host}")
    _refused(expunge(*run, "--allow-endpoint", "http://x/v1"), "expected HOST or HOST:PORT")
    _write("their.toml", _judged(tables, server.url, key_variable="AWS_SECRET_ACCESS_KEY"))
    for flag in (["--allow-endpoint", "127.0.0.1"], ["--trust"]):
        outcome = expunge(*run, *flag)
        assert outcome.code == 2
        assert "their.toml (evaluate.options.judged_naturalness.judges.0.key_variable)" in outcome.err
        assert SECRET not in outcome.err
    assert server.bodies == []
    assert not Path("out").exists()
    suite = {"sets": {"s": {"role": "forget", "data": str(fact_files["forget"])}}}
    suite["evaluate"] = _judged(tables, server.url)["evaluate"]
    _refused(expunge("eval", tables["model"]["name"], "--suite", _write("suite.toml", suite)), "suite.toml (", host)
    assert server.bodies == []


def test_rows_go_to_an_allowed_endpoint_and_the_user_is_told(
    expunge: Any, canary: Path, tables: Tables, server: Any, fact_files: dict[str, Path]
) -> None:
    host = server.url.removeprefix("http://").removesuffix("/v1")
    suite = {"sets": {"s": {"role": "forget", "data": str(fact_files["forget"])}}}
    suite["evaluate"] = _judged(tables, server.url, key_variable="MY_API_KEY")["evaluate"]
    file = _write("suite.toml", suite)
    outcome = expunge(
        "eval", tables["model"]["name"], "--suite", file, "--allow-endpoint", "127.0.0.1", "--quiet", "--json"
    )
    assert outcome.json()["scores"]["s"]["judged_naturalness"]["value"] is not None
    assert len(server.bodies) == 8
    assert f"sending 8 texts (question and answer of a row each) to m at {host}, with the key in MY_API_KEY" in (
        outcome.err
    )
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-mine"}


def test_an_endpoint_that_is_typed_needs_no_flag(
    expunge: Any, canary: Path, tables: Tables, server: Any, fact_files: dict[str, Path]
) -> None:
    """Nor does a variable of any name that is typed beside it."""
    judges = f'[{{model = "m", endpoint = "{server.url}", key_variable = "AWS_SECRET_ACCESS_KEY"}}]'
    asked = ["evaluate.metrics=['judged_naturalness']", f"evaluate.options.judged_naturalness.judges={judges}"]
    settings = [part for one in (*asked, "evaluate.samples=0") for part in ("--set", one)]
    data = f"forget={fact_files['forget']}"
    outcome = expunge("eval", tables["model"]["name"], "--data", data, *settings, "--quiet", "--json")
    assert outcome.json()["scores"]["forget"]["judged_naturalness"]["value"] is not None
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_a_logging_service_of_a_run_file_is_refused(expunge: Any, canary: Path, tables: Tables) -> None:
    file = _write("their.toml", _with(tables, "train.report_to", ["wandb"]))
    _refused(expunge("run", file, "--out", "out"), "their.toml (train.report_to.0)", "wandb", "--trust")
