"""Run files, records and everything else that commands read: not TOML, not JSON, or of another shape."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from bad_inputs import Call, damaged, family
from world import World

_TOML_COMMANDS = {
    "run": "run.toml",
    "continual": "continual.toml",
    "teach": "teach.toml",
    "meta-eval": "pool.toml",
    "eval": "suite.toml",
}


def _reads(command: str, file: str, world: World) -> list[str]:
    if command == "eval":
        return ["eval", str(world.model), f"--suite={file}"]
    return [command, file, *(["--out=out"] if command != "meta-eval" else [])]


@family
def toml_files(rng: random.Random, world: World, folder: Path) -> Call:
    """A TOML file with one thing wrong."""
    command = rng.choice(sorted(_TOML_COMMANDS))
    name = _TOML_COMMANDS[command]
    text = (world.folder / name).read_text(encoding="utf-8")
    lines = text.splitlines()
    values = [number for number, line in enumerate(lines) if " = " in line]
    place = rng.choice(values)
    key, _, value = lines[place].partition(" = ")
    wrong = "3" if value.startswith(('"', "[")) else '"wxyz"'
    ways = {
        "no TOML": "\n".join([*lines, "this is no TOML"]),
        "a key without a value": "\n".join([*lines[:place], f"{key} =", *lines[place + 1 :]]),
        "a key twice": "\n".join([*lines[: place + 1], lines[place], *lines[place + 1 :]]),
        "an unknown key": "\n".join([*lines[:place], f"wxyz_{key} = {value}", *lines[place:]]),
        "an unknown table": f"{text}\n[wxyz]\nkey = 1\n",
        "a value of the wrong type": "\n".join([*lines[:place], f"{key} = {wrong}", *lines[place + 1 :]]),
        "an open text": "\n".join([*lines[:place], f'{key} = "', *lines[place + 1 :]]),
        "nothing": "",
        "a JSON document": json.dumps({"recipe": "npo"}),
    }
    way = rng.choice([*sorted(ways), "no UTF-8", "zeros", "deep nesting"])
    raw = {
        "no UTF-8": b"# \xff\xfe\xe9\n" + text.encode(),
        "zeros": bytes(100),
        "deep nesting": b"x = " + b"[" * 20_000,
    }.get(way)
    (folder / "bad.toml").write_bytes(ways[way].encode() if raw is None else raw)
    return Call(f"{name} of {command}, line {place + 1}: {way}", _reads(command, "bad.toml", world))


@family
def records(rng: random.Random, world: World, folder: Path) -> Call:
    """A run's directory in which one record is damaged or of another kind."""
    shutil.copytree(world.run, folder / "run", symlinks=True)
    record = folder / "run" / "record.json"
    tables = json.loads(record.read_text(encoding="utf-8"))
    command = rng.choice([["report"], ["attack", "--attack=pruning"], ["diagnose", "confidence"], ["compare"]])
    arguments = [*command, "run"] if command[0] == "diagnose" else [command[0], "run", *command[1:]]
    ways = {
        "another schema": json.dumps({**tables, "schema_version": 99}),
        "a key missing": json.dumps({name: value for name, value in tables.items() if name != "config"}),
        "an unknown key": json.dumps({**tables, "wxyz": 1}),
        "a text for a table": json.dumps({**tables, "before": "x"}),
        "a list": "[]",
        "a number": "3",
        "null": "null",
    }
    if command[0] not in ("report", "compare"):  # which do not read what the run was
        config = {**tables["config"], "forget": {"name": "nope"}}
        ways["a loss that is none"] = json.dumps({**tables, "config": config})
    way = rng.choice([*sorted(ways), "damaged", "missing"])
    if way in ways:
        record.write_text(ways[way], encoding="utf-8")
    elif way == "missing":
        shutil.rmtree(folder / "run")
        (folder / "run").mkdir()
    else:
        way, content = damaged(rng, record.read_bytes())
        record.write_bytes(content)
    return Call(f"{command[0]}: record.json: {way}", arguments)


@family
def other_files(rng: random.Random, world: World, folder: Path) -> Call:
    """Files beside the record: rows, attacks, evaluations, references, models that are gone."""
    shutil.copytree(world.run, folder / "run", symlinks=True)
    shutil.copytree(world.evaluation, folder / "evaluation")
    log = (world.folder / "TOFU_EVAL.json").read_bytes()
    way, content = damaged(rng, log)
    reads = {
        "items.parquet": (folder / "run" / "items.parquet", ["compare", "run"]),
        "items of an evaluation": (folder / "evaluation" / "items.parquet", ["compare", "evaluation", "run"]),
        "attacks.json": (folder / "run" / "attacks.json", ["attack", "run", "--attack=pruning"]),
        "TOFU_EVAL.json": (folder / "TOFU_EVAL.json", ["import-ou", "TOFU_EVAL.json"]),
        "a reference": (
            folder / "x.reference.json",
            ["eval", str(world.model), f"--data=forget={world.data('forget')}", "--reference=x.reference.json"],
        ),
    }
    what = rng.choice([*sorted(reads), "no model"])
    if what == "no model":
        shutil.rmtree(folder / "run" / "model")
        return Call("run without its model", rng.choice([["attack", "run"], ["diagnose", "confidence", "run"]]))
    path, arguments = reads[what]
    if path.exists():
        way, content = damaged(rng, path.read_bytes())
    path.write_bytes(content)
    return Call(f"{what}: {way}", arguments)
