"""Command lines: values that options cannot have, arguments that lead nowhere, places that cannot be written."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

from bad_inputs import Call, family
from world import World

_WRONG_TEXT = {
    "--template": ["nope", ""],
    "--stage": ["during", ""],
    "--access": ["nope", ""],
    "--attack": ["nope", "", ",", "sampling,nope"],
    "--by": ["nope", "", "os:path"],
    "--suite": ["nope", "", "tofu:nope", "missing.toml"],
    "--whitebox": ["nope", ","],
    "--lm-eval": [","],
    "--recipe": ["nope", ""],
    "--model": ["nope", "", "./nowhere", "/nowhere", "missing.gguf"],
    "--original": ["nope", "./nowhere", ""],
    "--reference": ["nope", "./nowhere", "missing.reference.json", ""],
    "--refusal": ["nope", ""],
    "--data": ["nope", "forget", "=x", "forget=", "nobody=x.jsonl", "forget=missing.jsonl", ""],
    "--set": ["nope", "wxyz=1", "=", "evaluate.wxyz=1"],
    "--metric": ["nope", ""],
    "--budget": ["0", "-1", "nan", "soon"],
    "--push-to-hub": ["///", "", "a b/c", "../x"],
    "--forget": ["nope", "", "missing.jsonl", "https://example.com/x.jsonl"],
    "--retain": ["nope", "missing.jsonl"],
    "--folder": ["missing"],
}
"""Texts that an option of this name refuses, whatever the command."""


@cache
def _parameters() -> dict[str, list[Any]]:
    """Options of each command, as the command line itself knows them."""
    import typer

    from expunge.cli.main import app

    found: dict[str, list[Any]] = {}

    def walk(command: Any, path: str) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}".strip())
        found[path] = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]

    walk(typer.main.get_command(app), "")
    return found


@family
def command_options(rng: random.Random, world: World, folder: Path) -> Call:
    """A wrong value of one option."""
    names = [name for name in world.commands() if _parameters().get(name)]
    while True:
        name = rng.choice(names)
        option = rng.choice(_parameters()[name])
        long = next((opt for opt in option.opts if opt.startswith("--")), "")
        if option.bare_type in (int, float):
            values = ["abc", "", "-7"]
        elif long in _WRONG_TEXT and not (long == "--set" and name == "compare"):
            values = _WRONG_TEXT[long]
        else:
            continue
        value = rng.choice(values)
        return Call(f"{name} {long}={value!r}", [*world.command(name), f"{long}={value}"])


@family
def command_arguments(rng: random.Random, world: World, folder: Path) -> Call:
    """An option that the command does not have, an argument too many or too few, a command that is none."""
    name = rng.choice(sorted(world.commands()))
    arguments = world.command(name)
    words = len(name.split())
    way = rng.choice(["an unknown option", "nothing there", "no argument", "an unknown command", "a folder", "empty"])
    if way == "an unknown option":
        changed = [*arguments, f"--{rng.choice(['wxyz', 'verbos', 'modle'])}"]
    elif way == "an unknown command":
        changed = [rng.choice(["nope", "rnu", "evl", ""]), *arguments[1:]]
    elif name == "run":
        changed = ["run", rng.choice(["missing.toml", ".", "", str(world.data("forget"))])]
    elif way == "no argument":
        changed = arguments[:words]
    else:
        (folder / "empty").mkdir()
        there = {"nothing there": "missing", "a folder": "empty", "empty": ""}[way]
        changed = [*arguments[:words], there, *arguments[words + 1 :]]
    return Call(f"{name}: {way}", changed)


@family
def outputs(rng: random.Random, world: World, folder: Path) -> Call:
    """Places where nothing can be written, or that hold something else."""
    name = rng.choice(["run", "eval", "attack", "compare", "locate", "diagnose confidence", "teach", "continual"])
    name = rng.choice([name, name, "meta-eval", "import-ou"])
    (folder / "file").write_text("mine", encoding="utf-8")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    (folder / "dangling").symlink_to("nowhere/at/all")
    ways = ["file/below", "n" * 300, "dangling", "/dev/null", ""]
    if name not in ("compare", "import-ou", "locate"):  # which write a file
        ways.append("file")
    if name not in ("locate", "meta-eval", "attack", "diagnose confidence"):  # which add to what a folder holds
        ways.append("full")
    place = rng.choice(ways)
    arguments = [one for one in world.command(name) if not one.startswith("--out")]
    if name == "attack":
        arguments = ["attack", str(world.model), "--attack=sampling", f"--data=forget={world.data('forget')}"]
    return Call(f"{name} --out={place[:20]!r}", [*arguments, f"--out={place}"])
