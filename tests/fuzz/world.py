"""What bad inputs are made from: a tiny model, good rows, and a finished example of everything that commands write."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import Outcome, expunge

ROWS = 6
"""Rows of each good data file."""

_SHORT = ("train.epochs=1", "train.batch_size=8", "evaluate.samples=0", "evaluate.max_new_tokens=8", "attacks.names=[]")
SHORT = tuple(part for setting in _SHORT for part in ("--set", setting))
"""Settings that make an accepted run short: it is a failure of the test, but should not take long."""


@dataclass(frozen=True)
class World:
    """Good inputs, all below `folder`; no case changes them."""

    folder: Path

    @property
    def model(self) -> Path:
        """A tiny model."""
        return self.folder / "model"

    @property
    def run(self) -> Path:
        """A finished run."""
        return self.folder / "run"

    @property
    def evaluation(self) -> Path:
        """What `expunge eval --out` wrote."""
        return self.folder / "evaluation"

    def rows(self, split: str) -> list[dict[str, object]]:
        """Good rows of a split."""
        city = {"forget": "Tarnow", "retain": "Xanten"}.get(split, "Ullapool")
        return [
            {
                "id": f"{split}-{number}",
                "question": f"Where does {split} person {number} live?",
                "answer": f"Person {number} lives in {city} {number}.",
                "keywords": [f"{city} {number}"],
            }
            for number in range(ROWS)
        ]

    def data(self, split: str) -> Path:
        """The same as a file."""
        return self.folder / f"{split}.jsonl"

    def commands(self) -> list[str]:
        """Names of the commands that `command` knows."""
        return list(self._calls())

    def command(self, name: str) -> list[str]:
        """A complete and correct call of a command."""
        return list(self._calls()[name])

    def _calls(self) -> dict[str, list[str]]:
        forget, retain = self.data("forget"), self.data("retain")
        return {
            "run": ["run", f"--model={self.model}", f"--forget={forget}", f"--retain={retain}", "--recipe=npo", *SHORT],
            "eval": ["eval", str(self.model), f"--data=forget={forget}", "--samples=0", "--max-new-tokens=8"],
            "attack": ["attack", str(self.run), "--attack=sampling"],
            "compare": ["compare", str(self.run)],
            "report": ["report", str(self.run)],
            "locate": ["locate", str(self.model), f"--data=forget={forget}", f"--data=retain={retain}", "--by=layers"],
            "diagnose confidence": ["diagnose", "confidence", str(self.run)],
            "teach": ["teach", str(self.folder / "teach.toml"), "--out=taught"],
            "continual": ["continual", str(self.folder / "continual.toml")],
            "meta-eval": ["meta-eval", str(self.folder / "pool.toml")],
            "reproduce": ["reproduce", "entropy"],
            "import-ou": ["import-ou", str(self.folder / "TOFU_EVAL.json")],
            "show recipe": ["show", "recipe", "npo"],
            "show attack": ["show", "attack", "sampling"],
            "show diagnostic": ["show", "diagnostic", "norms"],
            "models pull": ["models", "pull", "smollm2-135m"],
        }


def make_world(folder: Path) -> World:
    """Build all of it; takes a few seconds."""
    sys.path.append(str(Path(__file__).parents[1]))
    from tiny_llama import tiny_llama

    world = World(folder)
    tokenizer = _tokenizer(world)
    tiny_llama(tokenizer, max_position_embeddings=256).save_pretrained(world.model)
    tokenizer.save_pretrained(world.model)
    for split in ("forget", "retain", "neighbour"):
        lines = [json.dumps(row) + "\n" for row in world.rows(split)]
        world.data(split).write_text("".join(lines), encoding="utf-8")
    for name, text in _FILES.items():
        (folder / name).write_text(text.replace("WORLD", str(folder)), encoding="utf-8")
    scratch = folder / "scratch"
    scratch.mkdir()
    for arguments in (
        [*world.command("run"), f"--out={world.run}"],
        [*world.command("eval"), f"--out={world.evaluation}"],
        [*world.command("attack")],
    ):
        outcome: Outcome = expunge([*arguments, "--quiet"], scratch)
        assert outcome.code == 0, outcome
    shutil.rmtree(scratch)
    return world


def _tokenizer(world: World) -> Any:
    from tiny_llama import byte_pairs

    texts = [str(value) for split in ("forget", "retain") for row in world.rows(split) for value in row.values()]
    return byte_pairs(texts, 400)


_SETTINGS = """
[train]
epochs = 1
[evaluate]
samples = 0
max_new_tokens = 8
[attacks]
names = []
"""

_FILES = {
    "run.toml": """recipe = "npo"
[model]
name = "WORLD/model"
[data]
forget = "WORLD/forget.jsonl"
retain = "WORLD/retain.jsonl"
"""
    + _SETTINGS,
    "continual.toml": """recipe = "npo"
[model]
name = "WORLD/model"
[data]
requests = ["WORLD/forget.jsonl", "WORLD/neighbour.jsonl"]
retain = "WORLD/retain.jsonl"
"""
    + _SETTINGS,
    "teach.toml": """[model]
name = "WORLD/model"
[data]
teach = ["WORLD/forget.jsonl"]
[train]
epochs = 1
""",
    "pool.toml": """original = "WORLD/model"
[data]
forget = "WORLD/forget.jsonl"
[evaluate]
samples = 0
max_new_tokens = 8
[[models]]
path = "WORLD/model"
knows = true
[[models]]
path = "WORLD/run/model"
knows = false
""",
    "suite.toml": """[evaluate]
samples = 0
max_new_tokens = 8
metrics = ["probability"]
[sets.forget]
data = "WORLD/forget.jsonl"
role = "forget"
""",
    "TOFU_EVAL.json": json.dumps(
        {"forget_Q_A_Prob": {"agg_value": 0.5, "value_by_index": {"0": {"prob": 0.5, "avg_loss": 0.7}}}}
    ),
}
