"""Options: every option of a run gets a value of the wrong type, out of range or unknown, by its own schema."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bad_inputs import Call, family
from pydantic import BaseModel
from world import World

_MEANINGLESS = {
    "model.device": ['"xyz"', '"cuda:99"', '"meta"'],
    "model.name": ['""', '"no-such-model"', '"./nowhere"'],
    "model.reference": ['"no-such-model"'],
    "model.system_prompt": ["3"],
    "train.optimizer": ['"nope"', '"os:path"'],
    "train.lr": ["inf", "nan", "1e999", "-1e-5"],
    "evaluate.metrics": ['["nope"]', '["probability", 3]', '"nope"'],
    "evaluate.stop": ['[""]', "[3]"],
    "evaluate.temperature": ["inf", "nan", "0", "-1"],
    "evaluate.options": ["{nope = {}}", "{probability = {nope = 1}}", "{probability = 3}"],
    "attacks.names": ['["nope"]', '"nope"', "[3]"],
    "attacks.options": ["{nope = {}}", "{sampling = {nope = 1}}"],
    "guard.stop_above": ["{nope = 1.0}", "{forget_loss = nan}", '{forget_loss = "x"}'],
    "guard.stop_below": ["{nope = 1.0}"],
    "localize.name": ['"nope"', '"os:path"', '"no_such_module:Class"'],
    "forget.name": ['"nope"', '"json:JSONDecoder"', "3"],
    "combine.name": ['"nope"'],
    "recipe": ['"nope"', "3", '"missing.toml"', '""'],
    "seed": ["-1", '"x"', "1.5", "true", "[]"],
    "data": ["3", '"x"', "{}"],
    "data.forget": ["3", "[]", '{nope = "x"}', '""'],
    "model": ["3", "[]", "{}"],
    "train": ["3", '"x"'],
}
"""Values that fit an option's type and mean nothing, and tables that are none."""


@cache
def _options() -> list[tuple[str, dict[str, Any]]]:
    """Dotted path and JSON schema of every option of a run with the recipe of the good call."""
    from expunge.config import Run, load_run
    from expunge.core.plugin_options import options_class
    from expunge.core.schema import SLOTS

    run = load_run(None, {"recipe": "npo"})
    found = list(_fields(Run, ""))
    for slot in SLOTS:
        found += list(_fields(options_class(slot, getattr(run, slot).name), f"{slot}."))
    return [one for one in found if not one[0].startswith(("data.", "diagnose.", "report.show"))]


def _fields(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    properties = kind.model_json_schema().get("properties", {})
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and inner.__name__ != "SlotChoice":
            yield from _fields(inner, f"{prefix}{name}.")
        elif name in properties and not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            yield f"{prefix}{name}", properties[name]


def _wrong(rng: random.Random, schema: dict[str, Any]) -> str:
    """TOML of a value that the schema does not allow."""
    kinds = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    types = {part.get("type") for part in kinds}
    values = ['"wxyz"', "[[1]]", "{wxyz = 1}", "1979-05-27"]
    if "string" in types and not any("enum" in part or "const" in part for part in kinds):
        values = ["3", "[[1]]", "{wxyz = 1}", "true"]
    if "array" in types:
        values = ["3", "{wxyz = 1}", "[[1]]", "1.5"]
    if "object" in types:
        values = ["3", '"wxyz"', "[[1]]"]
    if types <= {"integer", "number"}:
        values += ["true", "nan", "[]"]
        for part in kinds:
            if "minimum" in part:
                values.append(str(part["minimum"] - 1))
            if "exclusiveMinimum" in part:
                values.append(str(part["exclusiveMinimum"]))
            if "maximum" in part:
                values.append(str(part["maximum"] + 1))
        if "integer" in types and "number" not in types:
            values += ["1.5", "inf"]
    if types == {"boolean"}:
        values = ['"yes"', "3", "[]"]
    return rng.choice(values)


@family
def options(rng: random.Random, world: World, folder: Path) -> Call:
    """A value that an option does not allow."""
    path, schema = rng.choice(_options())
    setting = f"{path}={_wrong(rng, schema)}"
    return Call(f"--set {setting}", [*world.command("run"), "--set", setting])


@family
def meaningless_options(rng: random.Random, world: World, folder: Path) -> Call:
    """A value of the right type that means nothing; an option that there is not; a setting that is none."""
    path = rng.choice(sorted(_MEANINGLESS))
    known = rng.choice(_options())[0]
    table = known.rpartition(".")[0]
    setting = rng.choice(
        [
            *(f"{path}={value}" for value in _MEANINGLESS[path]),
            f"{known}x=1",
            f"{table}.wxyz=1" if table else "wxyz=1",
            rng.choice(["", "=", "a", "a.=3", ".a=3", "train.=1", "=1", "train..lr=1"]),
        ]
    )
    return Call(f"--set {setting}", [*world.command("run"), "--set", setting])


@family
def layers(rng: random.Random, world: World, folder: Path) -> Call:
    """Layers and modules that the model does not have."""
    recipe, setting = rng.choice(
        [
            ("rmu", "forget.layer=99"),
            ("rmu", "forget.layer=-99"),
            ("rmu", "localize.layers=[99]"),
            ("npo_local", 'localize.modules=["mlp.nope"]'),
            ("npo_local", "localize.layers=[1, 1, 77]"),
            ("npo", "model.lora.r=100000000"),
            ("falcon", "localize.components=0"),
        ]
    )
    extra = ["--set", "model.adapter=lora"] if "lora" in setting else []
    arguments = [*world.command("run"), f"--recipe={recipe}", *extra, "--set", setting]
    return Call(f"{recipe}: {setting}", arguments)
