"""How a run is put together, and that what is written down is what was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import BaseModel

from expunge.cli import show
from expunge.config import Run, check_run, contracts, load_run, load_tables
from expunge.core import plugins
from expunge.core.catalog import RECIPES, recipe_names
from expunge.core.catalog import recipe as read_recipe
from expunge.core.errors import UserError
from expunge.core.permission import granted
from expunge.core.toml import read_toml

BASE: dict[str, Any] = {"recipe": "npo", "model": {"name": "m"}, "data": {"forget": "f.jsonl", "retain": "r.jsonl"}}

MINE = '''
from pydantic import Field
from expunge.core.records import Frozen
from expunge.forget.base import ForgetLoss
from expunge.numerics.token import sequence_sum

class Mine(ForgetLoss):
    """Push down the sum."""
    class Config(Frozen):
        """Options."""
        strength: float = Field(2.0, gt=0, description="Factor")
    def loss(self, view):
        return self.config.strength * sequence_sum(view.token_logp(), view.batch.rows, view.batch.num_rows).mean()

class Other:
    """Not a loss."""
'''


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Write a run file."""

    def write(**tables: Any) -> Path:
        path = tmp_path / "run.toml"
        path.write_text(tomli_w.dumps({**BASE, **tables}), encoding="utf-8")
        return path

    return write


def test_precedence(file: Any, tmp_path: Path) -> None:
    """defaults < recipe < file < options < --set, seen on five keys that each stops at one stage earlier."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'summary = "Mine"\npaper = "none"\nforget = "simnpo"\nretain = "nll"\nlocalize = "everything"\n'
        'combine = {name = "weighted_sum", forget_weight = 0.2, retain_weight = 0.2}\n'
        "[train]\nlr = 0.2\nepochs = 2\nbatch_size = 2\n",
        encoding="utf-8",
    )
    path = file(recipe=str(recipe), train={"lr": 0.3, "epochs": 3}, forget={"beta": 3.0, "delta": 3.0})
    options = {"train": {"lr": 0.4}, "forget": {"beta": 4.0}}
    run = load_run(path, options, ["forget.beta=5", "seed=5"])
    assert run.train.retain_ratio == 1
    assert run.combine.options["retain_weight"] == 0.2
    assert (run.train.batch_size, run.train.epochs, run.train.lr) == (2, 3, 0.4)
    assert run.forget.options == {"beta": 5.0, "delta": 3.0}
    assert run.seed == 5


def test_another_filler_drops_the_old_ones_options(file: Any) -> None:
    """NPO's beta is 0.1, SimNPO's 4.5: a beta written for one must not reach the other."""
    path = file(forget={"name": "npo", "beta": 0.7})
    assert load_run(path).forget.options == {"beta": 0.7}
    assert load_run(path, {"forget": "simnpo"}).forget.options == {"beta": 4.5, "delta": 0.0}
    assert load_run(path, {}, ["forget=simnpo"]).forget.options["beta"] == 4.5
    assert load_run(path, {}, ["forget.name=npo"]).forget.options == {"beta": 0.7}
    assert load_run(path, {"recipe": "npo"}).forget.options == {"beta": 0.7}


def test_order_of_settings_drops_nothing(file: Any) -> None:
    settings = ["localize.name=layers", "localize.layers=[1]"]
    assert load_run(file(), {}, settings) == load_run(file(), {}, settings[::-1])
    assert load_run(file(), {}, settings).localize.options["layers"] == [1]


def test_another_recipe_drops_the_files_method_and_nothing_else(file: Any) -> None:
    tables = {
        "forget": {"beta": 0.7},
        "train": {"lr": 0.5},
        "guard": {"rows": 3},
        "evaluate": {"samples": 3},
        "seed": 9,
    }
    run = load_run(file(**tables), {"recipe": "simnpo"})
    assert run.recipe == "simnpo"
    assert run.forget.name == "simnpo"
    assert run.forget.options["beta"] == 4.5
    assert run.combine.options["forget_weight"] == 0.125
    assert run.train.lr == 1e-5
    assert run.guard.rows == 32
    assert (run.evaluate.samples, run.seed, run.data.forget.name) == (3, 9, "f.jsonl")


def test_own_data_takes_only_model_and_recipe_of_the_demo() -> None:
    demo = load_run()
    assert demo.report.show_forget_text
    assert (demo.data.forget.name, demo.data.forget.split) == ("people", "forget")
    mine = load_run(None, {"data": {"forget": "f.jsonl", "retain": "r.jsonl"}})
    assert (mine.model, mine.recipe) == (demo.model, demo.recipe)
    assert not mine.report.show_forget_text
    assert mine.evaluate == type(mine.evaluate)()
    assert mine.data.neighbour is None


def test_part_of_the_demo_can_be_asked_for() -> None:
    run = load_run(None, {}, ["data.forget.limit=4"])
    assert (run.data.forget.name, run.data.forget.split, run.data.forget.limit) == ("people", "forget", 4)
    assert run.data.general is not None
    run = load_run(None, {}, ["data.retain=people:general", "data.neighbour.limit=2", "data.general=x.jsonl"])
    assert (run.data.retain.name, run.data.retain.split) == ("people", "general")
    assert run.data.neighbour is not None
    assert (run.data.neighbour.split, run.data.neighbour.limit) == ("neighbour", 2)
    assert run.data.general is not None
    assert (run.data.general.name, run.data.general.split) == ("x.jsonl", "")


def test_a_split_can_be_a_list_of_data_sets() -> None:
    run = load_run(None, {}, ['data.retain=["people:retain", {name = "more.jsonl", skip = 2}]'])
    assert str(run.data.retain) == "people:retain + more.jsonl[2:]"
    assert check_run(run.tables()) == run


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_builds_and_survives_toml(name: str, tmp_path: Path) -> None:
    """Also with values that TOML has no word for (no floor), and with options that differ from their defaults."""
    tables = {**BASE, "recipe": name, "seed": 4, "guard": {"utility_floor": None, "forget_target": 0.25}}
    run = load_run(None, tables, ["model.system_prompt=", "train.report_to=['tensorboard']", "train.lr=3e-7"])
    for slot, base in contracts().items():
        assert isinstance(run.build(slot), base)
        assert getattr(run, slot).name in plugins.names(slot)
    text = tomli_w.dumps(run.tables())
    (tmp_path / "run.toml").write_text(text)
    assert check_run(read_toml(tmp_path / "run.toml")) == run
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    assert load_run(tmp_path / "run.toml") == run
    described = read_recipe(name)
    assert described["summary"]
    assert described["paper"].startswith("arXiv:")


def test_floor_can_be_switched_off() -> None:
    """From TOML and the command line, where there is no null."""
    for setting in ("guard.utility_floor=0", "guard.utility_floor=none"):
        assert load_run(None, {}, [setting]).guard.utility_floor == 0
    assert load_run().guard.utility_floor == 0.7


def test_values_of_settings_are_toml_or_bare_words() -> None:
    run = load_run(
        None,
        {},
        ["train.lr=1e-3", "model.name=org/name", 'model.device="cuda:1"', "evaluate.metrics=['probability']"],
    )
    assert run.train.lr == 1e-3
    assert run.model.name == "org/name"
    assert run.model.device == "cuda:1"
    assert run.evaluate.metrics == ("probability",)


def test_every_option_has_a_text(recwarn: pytest.WarningsRecorder) -> None:
    """The text is the help on the command line; a field without one is an option that nobody can find."""

    def fields(kind: type[BaseModel], path: str) -> list[tuple[str, str | None]]:
        found: list[tuple[str, str | None]] = []
        for name, field in kind.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.__name__ not in ("SlotChoice",):
                found += fields(inner, f"{path}.{name}")
            elif path != "Run" and path != "Run.data":
                found.append((f"{path}.{name}", field.description))
        return found

    options = fields(Run, "Run")
    for slot, base in contracts().items():
        for name in plugins.names(slot):
            options += fields(plugins.find(slot, name, base).Config, f"{slot}.{name}")
    assert len(options) > 40
    assert [name for name, text in options if not text or (text[0].islower() and " " not in text)] == []


def test_users_own_filler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_losses_for_test.py").write_text(MINE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"my_losses_for_test:{name}" for name in ("Mine", "Other", "Nothing")]
    with granted(classes=[*names, "my_losses_for_tset:Mine"]):
        settings = ["forget.name=my_losses_for_test:Mine", "forget.strength=3"]
        run = load_run(None, BASE, settings)
        loss = run.build("forget")
        assert type(loss).__name__ == "Mine"
        assert loss.config.strength == 3.0
        assert check_run(run.tables()) == run
        for setting, message in (
            ("forget.strength=-1", "forget.strength"),
            ("forget.strenght=1", "did you mean strength"),
            ("forget.name=my_losses_for_test:Other", "not a subclass"),
            ("forget.name=my_losses_for_test:Nothing", "Nothing"),
            ("forget.name=my_losses_for_tset:Mine", "my_losses_for_tset"),
        ):
            with pytest.raises(UserError, match=message):
                load_run(None, BASE, [*settings[:1], setting])
    sys.modules.pop("my_losses_for_test", None)


def test_users_own_filler_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, fact_files: dict[str, Path]
) -> None:
    from expunge.workflows.run import execute

    (tmp_path / "my_losses_for_run.py").write_text(MINE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    data = {name: str(fact_files[name]) for name in ("forget", "retain")}
    tables = {**BASE, "model": {"name": str(tiny_folder)}, "data": data, "train": {"epochs": 1, "lr": 1e-3}}
    tables["evaluate"] = {"metrics": ["probability"]}
    with granted(classes=["my_losses_for_run:Mine"]):
        run = load_run(None, {**tables, "forget": {"name": "my_losses_for_run:Mine"}})
        record = execute(run, tmp_path / "out").record
        assert record.after["forget"]["probability"].value < record.before["forget"]["probability"].value
        assert load_run(tmp_path / "out" / "run.toml") == run


def test_another_optimizer_inherits_no_options(file: Any) -> None:
    """rho means nothing to AdamW; the same optimizer keeps what is not set anew."""
    path = file(train={"optimizer": "sophia_g", "optimizer_options": {"rho": 0.5, "batch_factor": 10.0}})
    assert load_run(path, None, ["train.optimizer_options.rho=0.7"]).train.optimizer_options == {
        "rho": 0.7,
        "batch_factor": 10.0,
    }
    assert load_run(path, None, ["train.optimizer=adamw_torch"]).train.optimizer_options is None


def test_attacks_are_chosen_by_name_and_given_options() -> None:
    """Names as a list, options as a table of their own name; no names: no attacks."""
    run = load_tables({**BASE, "attacks": {"names": ["noise", "pruning"], "noise": {"samples": 2}}})
    assert run.attacks.names == ("noise", "pruning")
    assert run.attacks.options == {"noise": {"samples": 2}}
    assert load_tables({**BASE, "attacks": {"names": []}}).attacks.names == ()
    with pytest.raises(UserError, match=r"attacks\.names: .*array"):
        load_tables({**BASE, "attacks": {"names": "noise"}})


def test_a_chat_template_is_found_beside_its_run_file(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ messages }}", encoding="utf-8")
    file = tmp_path / "run.toml"
    model = '[model]\nname = "smollm2-135m"\nchat_template = "own.jinja"\ntemplate_options = {reasoning_effort="low"}\n'
    data = '[data]\nforget = "people:forget"\nretain = "people:retain"\n'
    file.write_text(f'recipe = "npo"\n{model}{data}', encoding="utf-8")
    run = load_run(file, None, ["model.template_options={enable_thinking=false}", "model.date=2026-01-02"])
    assert run.model.chat_template == str(tmp_path / "own.jinja")
    assert run.model.template_options == {"reasoning_effort": "low", "enable_thinking": False}
    assert run.tables()["model"]["date"] == "2026-01-02"
    assert check_run(run.tables()) == run
    with pytest.raises(UserError, match=r"model\.reasoning: .*what opens and what closes"):
        load_run(file, None, ['model.reasoning=["<think>"]'])


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith(("_official", "_zephyr"))])
def test_published_recipes_say_where_their_values_are_from(name: str) -> None:
    """Every source names an option, and every option that the recipe sets has one, by itself or with its table."""
    tables = read_recipe(name)
    run = load_run(None, {**BASE, "recipe": name}).model_dump()
    sources = tables["sources"]
    for option in sources:
        table, _, key = option.partition(".")
        known = run[table]["options"] if table in contracts() else run[table]
        assert not key or key in known
    own = read_toml(RECIPES / f"{name}.toml")
    base = {key for one in own.get("extends", ()) if one[0] != "_" for key in read_recipe(one)}
    for table, value in own.items():
        if isinstance(value, dict) and table not in ("sources", *base):
            unnamed = [key for key in value if key != "name" and f"{table}.{key}" not in sources]
            assert not unnamed or table in sources


@pytest.mark.parametrize("name", recipe_names())
def test_every_value_of_every_recipe_has_a_source(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the method and the training alike; what settings of a paper's code replaced is not called ours any more."""
    monkeypatch.setattr(show, "_metric_options", lambda given: [])  # half of the time, and no value of any recipe
    show.recipe(name, as_json=True)
    sources = {row["name"]: row["source"] for row in json.loads(capsys.readouterr().out)}
    assert [option for option, source in sources.items() if source == show.UNSTATED] == []
    assert {"train.lr", "train.batch_size", "guard.holdout", "model.precision", "data.chunk_tokens"} <= set(sources)
    if name.endswith(("_official", "_zephyr")):
        given = {f"{table}.{key}" for table, own in read_toml(RECIPES / f"{name}.toml").items() for key in _keys(own)}
        assert not {option for option in given & set(sources) if "NAME_official" in sources[option]}


def _keys(table: object) -> list[str]:
    return list(table) if isinstance(table, dict) else []


def test_a_recipe_can_extend_others(tmp_path: Path) -> None:
    """The later over the earlier, its own tables over both; a slot that is filled otherwise inherits no options."""
    file = tmp_path / "mine.toml"
    file.write_text('extends = ["me_gd_official", "npo_kl"]\nsummary = "Mine"\n[train]\nlr = 2e-5\n')
    run = load_run(None, {**BASE, "recipe": str(file)})
    assert (run.forget.name, run.forget.options) == ("npo", {"beta": 0.1})
    assert (run.retain.name, run.retain.options["scope"]) == ("kl", "answer")
    assert (run.train.lr, run.train.batch_size, run.guard.holdout) == (2e-5, 32, 0.0)
    file.write_text('extends = ["npo_kk"]\n')
    with pytest.raises(UserError, match=r"extends: no recipe 'npo_kk'.*npo_kl"):
        load_run(None, {**BASE, "recipe": str(file)})
