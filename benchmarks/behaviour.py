"""Record what every command and recipe computes on a tiny model, and compare with an earlier commit's record.

`python benchmarks/behaviour.py --out before.json` at one commit, `... --against before.json` at another: weights and
row tables must be equal to the bit, records equal except for times. For changes that must not change results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kills
import pyarrow.parquet

from expunge.core.catalog import recipe_names
from expunge.core.files import write_atomic

SMALLER = ("train.steps=2", "localize.layers=[0,1]", "forget.layer=1", "retain.layer=1")
"""What recipes for models of 32 blocks need on three."""
SETTINGS = {
    "rmu_zephyr": SMALLER,
    "adaptive_rmu_zephyr": SMALLER,
    "falcon_zephyr": SMALLER,
    "falcon": ("localize.name=layers",),
}


def observed(folder: Path, only: str) -> dict[str, dict[str, Any]]:
    """Command -> file -> its content: records without times; a hash of weights, or the existence of pages."""
    ground = kills.Ground(folder)
    run = next(command for command in ground.commands if command.name == "run npo_kl").words
    fixed = run[: run.index("--recipe")]
    recipes = [
        kills.Command(
            f"recipe {name}", (*fixed, "--recipe", name, *kills.set_words(*kills.SHORT, *SETTINGS.get(name, ())))
        )
        for name in recipe_names()
    ]
    found = {}
    for command in (*ground.commands, *recipes):
        if only and only not in command.name and command.name != "run npo_kl":
            continue
        try:
            ground.prepare(command)
        except RuntimeError as error:
            found[command.name] = {"refused": str(error).strip().splitlines()[-1].replace(str(folder), "FOLDER")}
            continue
        place = ground.whole[command.name]
        found[command.name] = {str(path.relative_to(place / "work")): _content(path, folder) for path in _files(place)}
        print(f"{command.name}: {len(found[command.name])} files, {ground.seconds[command.name]:.1f} s", flush=True)
    return found


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Each place where two records differ, with both values."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            if key not in before or key not in after:
                yield f"{where}/{key}: only {'after' if key in after else 'before'}"
            else:
                yield from differences(before[key], after[key], f"{where}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{where}/{place}")
    elif before != after:
        yield f"{where}: {before!r:.80} -> {after!r:.80}"


def _files(place: Path) -> list[Path]:
    return sorted(path for path in (place / "work").rglob("*") if path.is_file())


def _content(path: Path, folder: Path) -> Any:
    if path.suffix == ".json":
        text = path.read_text(encoding="utf-8").replace(str(folder), "FOLDER")
        return kills.timeless(json.loads(text))
    if path.suffix == ".parquet":
        return hashlib.sha256(json.dumps(pyarrow.parquet.read_table(path).to_pylist()).encode()).hexdigest()
    if path.suffix in (".safetensors", ".bin"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return path.stat().st_size > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to write the record")
    parser.add_argument("--against", type=Path, help="an earlier record, whose differences are printed")
    parser.add_argument("--only", default="", help="part of the commands' names")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        now = observed(Path(scratch).resolve(), wanted.only)
    if wanted.out:
        write_atomic(wanted.out, json.dumps(now, indent=1))
    if wanted.against:
        lines = list(differences(json.loads(wanted.against.read_text(encoding="utf-8")), json.loads(json.dumps(now))))
        print("\n".join(lines) or "no difference")
        raise SystemExit(bool(lines))
