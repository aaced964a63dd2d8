"""One run as one object: defaults, then the recipe, then the file, then the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from expunge.attacks.config import AttackConfig
from expunge.core import plugins
from expunge.core.catalog import OPTIONAL, recipe
from expunge.core.errors import UserError
from expunge.core.permission import check_remote_code
from expunge.core.plugin_options import options_class
from expunge.core.schema import SLOTS, Frozen
from expunge.core.toml import Tables, merge, read_toml, read_value
from expunge.core.validation import check
from expunge.data.base import DataConfig, beside
from expunge.evaluate.config import EvaluateConfig
from expunge.models.config import ModelConfig
from expunge.reports.base import ReportConfig
from expunge.train.config import DiagnoseConfig, GuardConfig, TrainConfig

DEMO = plugins.ROOT / "demo.toml"
_ABOUT = ("summary", "paper", "sources")
"""Keys of a recipe that describe it."""


class SlotChoice(Frozen):
    """The plug-in of a slot, with its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class Run(Frozen):
    """Everything that decides what a run does. Written to `run.toml`; feeding that back repeats the run."""

    recipe: str = Field(description="Named combination of the slots; see `expunge list recipes`")
    seed: int = Field(0, ge=0, lt=2**32, description="Feeds every random choice")
    model: ModelConfig
    data: DataConfig
    forget: SlotChoice
    retain: SlotChoice
    combine: SlotChoice
    localize: SlotChoice
    edit: SlotChoice
    train: TrainConfig
    guard: GuardConfig
    diagnose: DiagnoseConfig
    evaluate: EvaluateConfig
    attacks: AttackConfig
    report: ReportConfig

    def dated(self, date: str | None) -> Run:
        """The run with the date that its chat template saw before, as `ModelConfig.dated`."""
        return self.model_copy(update={"model": self.model.dated(date)})

    def build(self, slot: str) -> Any:
        """The plug-in of a slot."""
        choice: SlotChoice = getattr(self, slot)
        kind = plugins.find(slot, choice.name, contracts()[slot])
        return kind(check(kind.Config, choice.options, slot))

    def tables(self) -> Tables:
        """The run as plain TOML tables: slot options beside the slot's name, unset values left out."""
        tables = self.model_dump(mode="json", exclude_none=True)
        for slot in SLOTS:
            tables[slot] = {"name": tables[slot]["name"], **tables[slot]["options"]}
        return tables


def contracts() -> dict[str, type[Any]]:
    """Slot -> the class that its choices extend; importing these imports torch."""
    from expunge.combine.base import Combine
    from expunge.edit.base import Edit
    from expunge.forget.base import ForgetLoss
    from expunge.localize.base import Localizer
    from expunge.retain.base import RetainLoss

    return {"forget": ForgetLoss, "retain": RetainLoss, "combine": Combine, "localize": Localizer, "edit": Edit}


def load_run(file: Path | None = None, options: Tables | None = None, settings: Sequence[str] = ()) -> Run:
    """Assemble and check a run.

    Args:
        file: TOML file of the run; None takes the embedded demo. Of the demo, a run on the user's own data inherits
            the recipe and the model only: the demo shows its public facts in the report, others' stay hidden.
        options: tables that win over the file.
        settings: `a.b=c` strings that win over everything.

    Raises:
        UserError: unknown key, recipe or filler; wrong type; missing data.
    """
    tables = read_toml(DEMO) if file is None else read_tables(file)
    given = read_settings(settings, options)
    if _names_data(given):
        tables.pop("data", None)
        if file is None:
            tables = {key: tables[key] for key in ("recipe", "model")}
    if "recipe" not in {**tables, **given}:
        raise UserError(f'{file}: no recipe; add e.g. recipe = "npo"')
    return _assemble(tables, given)


def load_tables(tables: Tables, settings: Sequence[str] = ()) -> Run:
    """A run from the tables of a run file.

    Raises:
        UserError: as `load_run`.
    """
    return _assemble(tables, read_settings(settings))


def read_tables(file: Path) -> Tables:
    """The tables of a run file; its data files may lie beside it.

    Raises:
        UserError: no such file, or not TOML.
    """
    return _relative_to(read_toml(file), file.parent)


def _assemble(tables: Tables, given: Tables) -> Run:
    """Recipe, then tables, then what is given on the command line."""
    name = given.get("recipe", tables.get("recipe"))
    if "recipe" in given and given["recipe"] != tables.get("recipe"):
        tables = {key: value for key, value in tables.items() if key not in _METHOD}
    method = {key: value for key, value in recipe(_text(name, "recipe")).items() if key not in _ABOUT}
    return check_run(merge(merge(method, tables), {**given, "recipe": name}))


_METHOD = {*SLOTS, "train", "guard"}
"""Tables that belong to a recipe: another recipe does not inherit them from the file."""


def _names_data(given: Tables) -> bool:
    """Whether the user names the forget data, and not only an option of it such as `data.forget.limit`."""
    data = given.get("data")
    forget = data.get("forget") if isinstance(data, dict) else None
    return isinstance(forget, str | list) or (isinstance(forget, dict) and "name" in forget)


def check_run(tables: Tables) -> Run:
    """A run from complete tables.

    Raises:
        UserError: unknown key, wrong type or missing table.
    """
    tables = {**tables, **{slot: _choice(slot, tables.get(slot, OPTIONAL.get(slot))) for slot in SLOTS}}
    for name in ("train", "guard", "diagnose", "evaluate", "attacks", "report"):
        tables.setdefault(name, {})
    if "data" not in tables:
        raise UserError("data: name the rows to forget and to keep: [data] forget = ..., retain = ...")
    run = check(Run, tables, "")
    if run.model.trust_remote_code:
        check_remote_code()
    return run


def _choice(slot: str, table: Any) -> Tables:
    """A slot's table, or the name of its plug-in alone, as a `SlotChoice`."""
    table = {"name": table} if isinstance(table, str) else table
    if not isinstance(table, dict) or "name" not in table:
        raise UserError(f'{slot}: name a plug-in, e.g. {slot} = "{plugins.names(slot)[0]}"')
    options = {key: value for key, value in table.items() if key != "name"}
    config = check(options_class(slot, _text(table["name"], f"{slot}.name")), options, slot)
    return {"name": table["name"], "options": config.model_dump(mode="json", exclude_none=True)}


def read_settings(settings: Sequence[str], options: Tables | None = None) -> Tables:
    """The tables of `a.b=c` strings over other tables; the later of two strings wins.

    Raises:
        UserError: a string of another form.
    """
    tables = merge(options or {}, {})
    for setting in settings:
        tables = merge(tables, _setting(setting))
    return tables


def _setting(text: str) -> Tables:
    """Tables of one `a.b=c`; c is TOML, and a bare word is a string."""
    path, equals, raw = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise UserError(f"--set {text}: write it as key.key=value")
    value = read_value(raw)
    for key in reversed(keys):
        value = {key: value}
    tables: Tables = value
    return tables


def _relative_to(tables: Tables, folder: Path) -> Tables:
    """Resolve data files and a chat template that exist beside the run file, but not relative to the working folder."""

    def found(value: Any) -> Any:
        if isinstance(value, list):
            return [found(part) for part in value]
        if isinstance(value, dict):
            return {**value, **{key: found(value[key]) for key in ("name", "also") if key in value}}
        return beside(value, folder) if isinstance(value, str) else value

    model = tables.get("model")
    if isinstance(model, dict) and isinstance(model.get("chat_template"), str):
        tables = {**tables, "model": {**model, "chat_template": beside(model["chat_template"], folder)}}
    if not isinstance(tables.get("data"), dict):
        return tables
    data = {key: found(value) for key, value in tables["data"].items()}
    return {**tables, "data": data}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: expected a name, got {value!r}")
    return value
