"""Everything that touches a device, on a tiny bfloat16 model: `python everything.py DEVICE FOLDER [PART or NAME ...]`.

With `--simulated` CUDA is simulated, and what was refused and waited for is printed as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from simulated_cuda import SimulatedCuda
from transformers import TrainerCallback

from expunge.combine.base import Combine
from expunge.core.plugins import find, names
from expunge.core.toml import read_toml
from expunge.data.example import Splits
from expunge.data.load import examples_from_rows
from expunge.diagnose.base import Diagnostic
from expunge.localize.base import Localizer
from expunge.losses.base import Loss
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

QUICK = read_toml(Path(__file__).parents[1] / "attacks" / "quick.toml")
QUICK |= {
    "relearning": {"steps": 2, "looks": 1, "rows": [2]},
    "sampling": {"samples": 1, "temperatures": [0.7]},
    "quantization": {"formats": ["int8"]},
}
TOKENS = 3
OPTIONS: dict[str, dict[str, Any]] = {
    "belief_sequence": {"samples": 1, "refresh": "off_policy"},
    "hidden_mse": {"tokens": "all"},
}
RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("weighted_sum", {"watch_conflict": True}),
    ("orthogonal", {}),
    ("orthogonal", {"projection_scope": "global", "keep_descent": True}),
    ("null_space", {"mode": "update", "rule": "rank"}),
    ("null_space", {"mode": "grad", "rule": "rank"}),
    ("null_space", {"mode": "reparam", "rule": "rank"}),
)
LOCALIZERS = {
    "causal_tracing": {"facts": 1, "draws": 1, "min_probability": 0.0, "min_effect": -1.0, "window": 1},
    "mutual_information": {"window": 1, "components": 1, "texts": 10},
    "layers": {"layers": [1]},
}
DIAGNOSTICS = ("noise_sensitivity", "alignment", "confidence", "direction_ablation", "entanglement")


class Waits(TrainerCallback):
    """How often the host waited in each training step, by line."""

    def __init__(self, gpu: SimulatedCuda | None) -> None:
        self.gpu = gpu
        self.steps: list[Counter[tuple[str, str]]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._before = Counter(self.gpu.waits) if self.gpu else Counter()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        if self.gpu:
            self.steps.append(Counter(self.gpu.waits) - self._before)


KINDS: dict[str, Any] = {"forget": Loss, "retain": Loss, "combine": Combine}
KINDS |= {"localize": Localizer, "diagnose": Diagnostic}


def build(slot: str, name: str, options: dict[str, Any]) -> Any:
    kind = find(slot, name, KINDS[slot])
    return kind(kind.Config.model_validate(options))


class World:
    """Rows, and a folder with a random model of three blocks."""

    def __init__(self, device: str, folder: Path, gpu: SimulatedCuda | None) -> None:
        self.device, self.folder, self.gpu = device, folder, gpu
        rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        self.rows = {name: examples_from_rows(found, name) for name, found in rows.items()}
        self.waits: dict[str, list[int]] = {}
        self.lines: Counter[tuple[str, str]] = Counter()

    def load(self) -> LanguageModel:
        model = load_model(ModelConfig(name=str(self.folder), device=self.device))
        if self.gpu is not None:
            assert model.device == torch.device(self.device)
            assert (model.precision, next(model.network.parameters()).dtype) == ("bfloat16", torch.bfloat16)
        return model

    @property
    def splits(self) -> Splits:
        return Splits(self.rows["forget"], self.rows["retain"])

    def train(self, name: str, forget: Any, retain: Any, combine: Any, modules: str = "1.mlp.down_proj") -> None:
        """Two steps."""
        from expunge.train import unlearn as training
        from expunge.train.config import GuardConfig, TrainConfig

        model = self.load()
        model.freeze_but([key for key, _ in model.network.named_parameters() if modules in key])
        train = TrainConfig(lr=1e-3, epochs=1, batch_size=2, checkpoints=False)
        guard, waits = GuardConfig(utility_floor=None), Waits(self.gpu)
        prepared = training.prepare(
            model, self.rows["forget"], self.rows["retain"], forget, retain, combine, train, guard, 0
        )
        for loss in (forget, retain):
            loss.start(model, combine.project)
        task, held = prepared.task, prepared.held_out
        training.fit(model, task, held, train, guard, 0, self.folder / "training", callbacks=[waits])
        assert {one.device for one in model.network.parameters()} == {torch.device(self.device)}
        self.waits[name] = [step.total() for step in waits.steps]
        for step in waits.steps:
            self.lines.update(step)

    def training(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every forget and retain loss, combination rule and localizer."""

        def run(name: str, **slots: tuple[str, dict[str, Any]]) -> tuple[str, Callable[[], None]]:
            chosen = {"forget": ("npo", {}), "retain": ("nll", {}), "combine": ("weighted_sum", {})} | slots
            return name, lambda: self.train(name, *(build(slot, *chosen[slot]) for slot in chosen))

        for slot in ("forget", "retain"):
            for name in names(slot):
                yield run(f"{slot}/{name}", **{slot: (name, OPTIONS.get(name, {}))})
        for place, (name, options) in enumerate(RULES):
            yield run(f"combine/{name}/{place}", combine=(name, options))
        for name in names("localize"):
            yield f"localize/{name}", lambda name=name: self.localize(name)  # type: ignore[misc]

    def localize(self, name: str) -> None:
        build("localize", name, LOCALIZERS.get(name, {})).select(self.load(), self.splits, 0)

    def measuring(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every metric, and the depth measures."""
        from expunge.api import measure

        judges = {"entailment": "model", "gibberish": "model", "judged_similarity": "", "judged_naturalness": ""}
        metrics = [name for name in names("evaluate/metrics") if name not in judges and name != "cosine_similarity"]
        config = {"metrics": metrics, "max_new_tokens": TOKENS, "samples": 1, "cache": False, "max_rows": 2}
        data: dict[str, Any] = {role: self.folder / f"{role}.jsonl" for role in ("forget", "retain")}
        model = str(self.folder)

        def run() -> None:
            options = {"device": self.device}
            measure(model, data, config=config, model_config=options, original=model, reference=model)

        yield "metrics", run

    def attacks(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every attack, with quick options."""
        from attack_ground import build as build_attack

        from expunge.attacks.base import Context
        from expunge.evaluate.base import EvaluateConfig
        from expunge.evaluate.kinds import Labeller

        config = EvaluateConfig(max_new_tokens=TOKENS)
        rows = self.rows["forget"][:2]
        model, splits = self.load(), self.splits
        context = Context(
            model, splits, rows, Labeller(config.kinds), config, load_original=self.load, load_retrained=self.load
        )
        context = Context(**{**vars(context), "original_plain": context.said(), "unlearned_plain": context.said()})

        def run(name: str) -> None:
            with model.evaluating():
                assert list(build_attack(name, **QUICK.get(name, {})).run(context))

        for name in names("attacks"):
            yield f"attacks/{name}", lambda name=name: run(name)  # type: ignore[misc]

    def diagnostics(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every diagnostic that looks at a model."""
        from expunge.diagnose.base import Context

        for name in DIAGNOSTICS:
            context = Context({"original": self.load, "unlearned": self.load}, self.splits, max_rows=2)
            yield f"diagnose/{name}", lambda name=name, context=context: build("diagnose", name, {}).measure(context)


PARTS = ("training", "measuring", "attacks", "diagnostics")


def run(world: World, parts: tuple[str, ...] = PARTS, only: tuple[str, ...] = ("",)) -> dict[str, str]:
    """Name -> last line of what went wrong; of the steps whose names begin with one of `only`."""
    failed = {}
    for part in parts:
        for name, step in getattr(world, part)():
            if not name.startswith(only):
                continue
            try:
                step()
            except Exception as error:
                if os.environ.get("EXPUNGE_TRACEBACK"):
                    traceback.print_exc()
                failed[name] = f"{type(error).__name__}: {error}"
    return failed


def main() -> None:
    simulated = "--simulated" in sys.argv
    device, folder, *given = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    parts = tuple(one for one in given if one in PARTS) or PARTS
    only = tuple(one for one in given if one not in PARTS) or ("",)
    if not simulated:
        world = World(device, Path(folder), None)
        print(json.dumps({"failed": run(world, parts, only)}))
        return
    with SimulatedCuda() as gpu:
        world = World(device, Path(folder), gpu)
        found = {
            "failed": run(world, parts, only),
            "mixed": [f"{line}: {text}" for line, text in gpu.errors],
            "waits": world.waits,
            "lines": [f"{count} {kind} {line}" for (line, kind), count in world.lines.most_common(40)],
        }
    print(json.dumps(found), flush=True)
    os._exit(0)  # the autograd engine's thread for a device does not end


if __name__ == "__main__":
    main()
