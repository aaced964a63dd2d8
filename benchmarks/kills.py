"""Kill every command at seeded moments, repeat it, compare with an uninterrupted one: benchmarks/kills.py --kills 200.

A process dies by SIGKILL just before its n-th change of a file or folder, or after a random share of its time. The same
command is then given again, with `--resume` where it has that option. Weights must be the same to the bit, records the
same except for times. Processes are forked from one that has loaded everything, so that a kill costs about two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
import tomli_w
import torch

from expunge.cli.main import main
from expunge.data.sources.fictional import Fictional

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from tiny_llama import byte_pairs, tiny_llama

MEASURED = ("evaluate.samples=0", "evaluate.max_new_tokens=4", "evaluate.metrics=['keyword_recall','probability']")
SHORT = (
    *MEASURED,
    "train.epochs=2",
    "train.batch_size=4",
    "train.lr=1e-3",
    "train.checkpoint_every=1",
    "attacks.names=['sampling']",
    "attacks.sampling.samples=2",
    "attacks.max_rows=2",
)
TUNING = ("tuning_epochs=2", "tuning_batch_size=4", "tuning_lr=1e-3")
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.chmod", "os.truncate", "os.link"}
"""Python's audit events of what changes a folder; they come just before the change."""
TIMES = {"seconds", "provenance", "peak_memory_mb", "created", "command"}
FINISHED = ("never overwritten", "is there already")
"""Messages of a command whose result was complete before the kill."""


@dataclass(frozen=True)
class Command:
    """One command line, and the files that its folder must hold beforehand."""

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Names in the whole results that are copied first."""
    resume: bool = False


@dataclass
class Tally:
    """What a campaign found."""

    kills: int = 0
    survived: int = 0
    """Commands that were done before the kill came."""
    stuck: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """What is printed."""
        counts = f"kills {self.kills}, ended before the kill {self.survived}"
        found = {"stuck directories": self.stuck, "differing results": self.differing, "stray files": self.stray}
        return [
            counts,
            *(f"{name} {len(some)}" + "".join(f"\n  {one}" for one in some) for name, some in found.items()),
        ]


class Ground:
    """A tiny model, its facts, and the commands.

    Args:
        folder: where everything is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "tiny"
        source = Fictional(Fictional.Config(authors=4, questions=4, forget_authors=2))
        rows = {name: source.rows(name)[:8] for name in ("forget", "retain")}
        for name, some in rows.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
        _save_tiny(self.model, [str(value) for some in rows.values() for row in some for value in row.values()])
        forget, retain = folder / "forget.jsonl", folder / "retain.jsonl"
        requests = [{"name": str(forget), "limit": 4}, {"name": str(forget), "skip": 4}]
        model = {"name": str(self.model)}
        teach = {
            "model": model,
            "data": {"teach": [str(forget)]},
            "train": {"lr": 1e-3, "epochs": 2, "batch_size": 4, "checkpoint_every": 1},
        }
        continual = {"recipe": "npo", "model": model, "data": {"requests": requests, "retain": str(retain)}}
        pool = {
            "original": str(self.model),
            "data": {"forget": str(forget)},
            "evaluate": {"samples": 0, "max_new_tokens": 4, "metrics": ["keyword_recall", "probability"]},
            "models": [{"path": str(self.model), "knows": True}, {"path": "run/model", "knows": False}],
        }
        files = {"teach": teach, "continual": continual, "pool": pool, "reproduction": _reproduction(teach, retain)}
        for name, tables in files.items():
            (folder / f"{name}.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
        log = folder / "TOFU_EVAL.json"
        values = {str(row): {"prob": 0.1 * row, "avg_loss": 1.0} for row in range(8)}
        log.write_text(json.dumps({"forget_Q_A_Prob": {"agg_value": 0.35, "value_by_index": values}}), encoding="utf-8")
        data = ("--data", f"forget={forget}", "--data", f"retain={retain}")
        run = ("run", "--model", str(self.model), "--forget", str(forget), "--retain", str(retain), "--out", "out")
        recipes = {
            "npo_kl": ("npo_kl", "guard.utility_floor=0.01", "guard.every=1"),
            "grad_diff with LoRA": ("grad_diff", "model.adapter=lora", "guard.utility_floor=0"),
            "adaptive_rmu": ("adaptive_rmu", "guard.every=1"),
            "task_vector": ("task_vector", "train.epochs=0", *(f"edit.{one}" for one in TUNING)),
            "ssd and npo": ("npo", "edit=dampening", "guard.utility_floor=0.01", "guard.every=1"),
            "whp": ("whp", *(f"forget.{one}" for one in TUNING)),
            "bs_s": ("bs_s", "forget.samples=2", "forget.max_new_tokens=4"),
        }
        self.commands = [
            *(
                Command(f"run {name}", (*run, "--recipe", recipe, *set_words(*SHORT, *settings)), resume=True)
                for name, (recipe, *settings) in recipes.items()
            ),
            Command("teach", ("teach", str(folder / "teach.toml"), "--out", "out")),
            Command(
                "continual",
                ("continual", str(folder / "continual.toml"), "--out", "out", *set_words(*SHORT, "attacks.names=[]")),
                resume=True,
            ),
            Command(
                "eval",
                (
                    "eval",
                    str(self.model),
                    *data,
                    "--out",
                    "out",
                    "--show-text",
                    "--samples",
                    "2",
                    *set_words(*MEASURED[1:]),
                ),
            ),
            Command(
                "attack",
                ("attack", "run", "--attack", "pruning,noise"),
                needs=("run npo_kl",),
            ),
            Command("locate", ("locate", str(self.model), *data, "--by", "random", "--out", "out")),
            Command("diagnose", ("diagnose", "alignment", "run", "--out", "out"), needs=("run npo_kl",)),
            Command("compare", ("compare", "run", "--out", "out.json"), needs=("run npo_kl",)),
            Command("report", ("report", "run"), needs=("run npo_kl",)),
            Command("meta-eval", ("meta-eval", str(folder / "pool.toml"), "--out", "out"), needs=("run npo_kl",)),
            Command("import-ou", ("import-ou", str(log), "--out", "out.reference.json")),
            Command("reproduce", ("reproduce", str(folder / "reproduction.toml"), "--out", "out")),
        ]
        self.whole: dict[str, Path] = {}
        self.events: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def load(self, command: Command) -> None:
        """Carry a command out in this very process, so that forked ones find every module loaded."""
        place, here = self._place(command, "loaded"), Path.cwd()
        kept = [os.dup(stream) for stream in (1, 2)]
        streams = sys.stdout, sys.stderr
        os.environ["EXPUNGE_CACHE"] = str(place / "cache")
        try:
            os.chdir(place / "work")
            _redirect(place / "output")
            sys.argv = ["expunge", *command.words]
            _exit_code(main)
        finally:
            os.chdir(here)
            sys.stdout, sys.stderr = streams
            for stream, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, stream)
                os.close(copy)

    def prepare(self, command: Command) -> None:
        """Carry a command out unbroken, and count its changes.

        Raises:
            RuntimeError: it fails.
        """
        place = self._place(command, "whole")
        start = time.monotonic()
        code = self._carry_out(command, place, counted=place / "events")
        self.seconds[command.name] = time.monotonic() - start
        if code:
            raise RuntimeError(f"{command.name}: {code}\n{(place / 'output').read_text()}")
        self.events[command.name] = int((place / "events").read_text())
        self.whole[command.name] = place

    def kill(self, command: Command, number: int, draw: random.Random, tally: Tally) -> None:
        """Kill it once, repeat it, compare."""
        place = self._place(command, f"kill-{number}")
        if draw.random() < 0.75:
            at = draw.randint(1, self.events[command.name])
            what = f"{command.name}, change {at} of {self.events[command.name]}"
            code = self._carry_out(command, place, at=at)
        else:
            after = draw.random() * self.seconds[command.name]
            what = f"{command.name}, after {after:.3f} s"
            code = self._carry_out(command, place, after=after)
        if code != -signal.SIGKILL:
            tally.survived += 1
        tally.kills += code == -signal.SIGKILL
        code = self._carry_out(command, place, more=("--resume",) if command.resume else ())
        said = (place / "output").read_text()
        if code and not (code == 2 and any(words in said for words in FINISHED)):
            tally.stuck.append(f"{what}: {said.strip().splitlines()[-1] if said.strip() else code}")
            return
        missing, extra, unlike = compare(self.whole[command.name], place)
        tally.differing += [f"{what}: {name}" for name in (*missing, *unlike)]
        tally.stray += [f"{what}: {name}" for name in extra]
        if not (missing or extra or unlike):
            shutil.rmtree(place)

    def _place(self, command: Command, kind: str) -> Path:
        place = self.folder / kind / command.name.replace(" ", "-")
        (place / "work").mkdir(parents=True)
        for name in command.needs:
            shutil.copytree(self.whole[name] / "work" / "out", place / "work" / "run")
        return place

    def _carry_out(
        self,
        command: Command,
        place: Path,
        *,
        more: tuple[str, ...] = (),
        at: int | None = None,
        after: float | None = None,
        counted: Path | None = None,
    ) -> int:
        """The exit code, negative for a signal."""
        child = os.fork()
        if not child:
            os.chdir(place / "work")
            os.environ["EXPUNGE_CACHE"] = str(place / "cache")
            _redirect(place / "output")
            counter = _watch(place, at)
            if after is not None:
                threading.Timer(after, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
            sys.argv = ["expunge", *command.words, *more, *(() if command.name in _TALKING else ("--quiet",))]
            code = _exit_code(main)
            if counted is not None:
                counted.write_text(str(counter()))
            os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


_TALKING = ("compare", "report", "import-ou")
"""Commands without --quiet."""


def campaign(folder: Path, kills: int, seed: int = 0, only: str = "", say: Callable[[str], object] = print) -> Tally:
    """Kill commands in turn.

    Args:
        folder: an empty one; what went wrong stays there.
        kills: how many.
        seed: of the moments.
        only: beginnings of commands' names, with commas between them.
        say: where to report.
    """
    torch.set_num_threads(1)
    ground, draw, tally = Ground(folder), random.Random(seed), Tally()
    chosen = [command for command in ground.commands if command.name.startswith(tuple(only.split(",")))]
    needed = {name for command in chosen for name in command.needs}
    taking_part = [command for command in ground.commands if command in chosen or command.name in needed]
    ground.load(taking_part[0])
    gc.collect()
    gc.freeze()
    for command in taking_part:
        ground.prepare(command)
        say(f"{command.name}: {ground.events[command.name]} changes, {ground.seconds[command.name]:.1f} s")
    for number in range(2 * kills):  # a command may be done before its kill comes
        if tally.kills == kills:
            break
        ground.kill(chosen[number % len(chosen)], number, draw, tally)
        if (number + 1) % 20 == 0:
            say(f"{number + 1} tries: " + "; ".join(line.splitlines()[0] for line in tally.lines()))
    return tally


def compare(whole: Path, place: Path) -> tuple[list[str], list[str], list[str]]:
    """Missing files, extra files, and files whose content differs."""
    ours, theirs = ({str(path.relative_to(one)): path for path in _files(one)} for one in (place, whole))
    both = sorted(set(ours) & set(theirs))
    unlike = [name for name in both if _content(ours[name]) != _content(theirs[name])]
    left = [str(path.relative_to(place)) for path in (place / "cache").rglob("*.partial")]
    return sorted(set(theirs) - set(ours)), sorted({*set(ours) - set(theirs), *left}), unlike


def _files(place: Path) -> Iterator[Path]:
    return (path for path in (place / "work").rglob("*") if path.is_file())


def _content(path: Path) -> Any:
    """What must be equal: weights and tables to the bit, records without times; pages show times."""
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".html" or path.name in ("README.md", "table.md"):
        return path.stat().st_size > 0
    return path.read_bytes()


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in TIMES}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def _watch(place: Path, at: int | None) -> Callable[[], int]:
    """Count changes below a folder, and die just before one of them."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (event in CHANGES or writes) or not isinstance(arguments[0], str | os.PathLike):
            return
        if os.path.abspath(arguments[0]).startswith((str(place / "work"), str(place / "cache"))):
            seen += 1
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: seen


def _redirect(path: Path) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))


def _exit_code(work: Callable[[], None]) -> int:
    try:
        work()
    except SystemExit as stop:
        return int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99
    return 0


def set_words(*settings: str) -> tuple[str, ...]:
    return tuple(word for setting in settings for word in ("--set", setting))


def _reproduction(teach: dict[str, Any], retain: Path) -> dict[str, Any]:
    """One method at two strengths, on a taught target, beside a reference that never saw the forget rows."""
    return {
        "summary": "Two strengths of one method",
        "paper": "none",
        "seeds": [0],
        "utility": "keyword recall",
        "columns": {"keyword recall": "after.retain.keyword_recall"},
        "grid": {"key": "train.lr", "values": [1e-3, 2e-3]},
        "methods": {"npo": {"recipe": "npo"}},
        "teach": teach,
        "retrained": {"data": {"teach": [str(retain)]}},
        "run": {
            "data": {"forget": teach["data"]["teach"][0], "retain": str(retain)},
            "train": {"epochs": 1, "batch_size": 4},
            "evaluate": {"samples": 0, "max_new_tokens": 4, "metrics": ["keyword_recall", "probability"]},
            "guard": {"utility_floor": 0.0},
            "attacks": {"names": []},
        },
    }


def _save_tiny(folder: Path, texts: list[str]) -> None:
    """A random Llama of three blocks with a tokenizer of these texts."""
    tokenizer = byte_pairs(texts, 400)
    network = tiny_llama(
        tokenizer, num_hidden_layers=3, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="beginnings of commands' names, with commas")
    parser.add_argument("--keep", type=Path, help="an empty folder, which is kept")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="expunge-kills-")))
        root.mkdir(parents=True, exist_ok=True)
        found = campaign(root, options.kills, options.seed, options.only, lambda text: print(text, flush=True))
    print("\n".join(found.lines()))
    sys.exit(bool(found.stuck or found.differing or found.stray))
