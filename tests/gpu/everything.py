"""Everything that touches a device, on a tiny half-precision model.

`python tests/gpu/everything.py DEVICE FOLDER [NAME ...]` runs every plug-in, or those whose `slot/name` begins with a
NAME, and prints one line of JSON: what failed, and what each step found. The list comes from the plug-in folders, so
that a new file there is covered by itself. `--precision NAME` sets `model.precision`; `--more` adds further options of
some plug-ins. With `--simulated` CUDA devices are simulated, and what was refused and waited for is printed too:
`--old` of a generation without bfloat16, `--no-float64` without float64, as MPS.
`--accelerate-cpu` sets ACCELERATE_USE_CPU, which must not move the model. `... then DEVICE FOLDER ...` goes on
in the same process; simulated devices come first. `tiny_world.py` makes the folder.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from simulated_cuda import SimulatedCuda
from transformers import TrainerCallback

from expunge.attacks.base import Attack, AttackContext
from expunge.combine.base import Combine
from expunge.core.plugins import find, names
from expunge.core.records import StepLog
from expunge.core.toml import read_toml
from expunge.data.load import examples_from_rows
from expunge.data.splits import Splits
from expunge.diagnose.base import Diagnostic, DiagnosticContext
from expunge.edit.base import Edit
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.config import EvaluateConfig
from expunge.localize.base import Localizer
from expunge.losses.base import Loss
from expunge.models import precision
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model
from expunge.models.save import save_model
from expunge.train import scaling
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.editing import apply_edit
from expunge.train.fit import fit
from expunge.train.job import Method, TrainingJob
from expunge.train.unlearn import prepare
from expunge.workflows.evaluate import data_plan, evaluate_models

TOKENS = 3
ATTACKS = read_toml(Path(__file__).parents[1] / "attacks" / "quick.toml") | {
    "relearning": {"steps": 1, "looks": 1, "rows": [1]},
    "sampling": {"samples": 1, "temperatures": [0.7]},
    "quantization": {"formats": [{"levels": "int8"}, {"levels": "nf4"}]},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "forget/belief_sequence": {"samples": 1, "refresh": "off_policy"},
    "localize/causal_tracing": {"facts": 1, "draws": 1, "min_probability": 0.0, "min_effect": -1.0, "window": 1},
    "localize/mutual_information": {"window": 1, "components": 1, "texts": 10},
    "localize/layers": {"layers": [1]},
    "combine/null_space": {"rule": "rank"},
    "diagnose/confidence": {"max_new_tokens": TOKENS},
    "diagnose/direction_ablation": {"max_new_tokens": TOKENS},
    "diagnose/entanglement": {"components": 1, "max_rows": 10},
}
"""What makes a plug-in short, or lets it run on a model that knows nothing; the others run with their defaults."""
MORE: dict[str, list[dict[str, Any]]] = {
    "forget/contrast": [{"per": "batch"}, {"pov": "code"}],
    "forget/belief_sequence": [{"samples": 1, "refresh": "step"}],
    "retain/hidden_mse": [{"tokens": "all"}],
    "combine/weighted_sum": [{"watch_conflict": True}],
    "combine/orthogonal": [{"projection_scope": "global", "keep_descent": True}],
    "combine/null_space": [{"mode": "grad", "rule": "rank"}, {"mode": "reparam", "rule": "rank"}],
}
KINDS: dict[str, Any] = {"forget": Loss, "retain": Loss, "combine": Combine, "edit": Edit}
KINDS |= {"localize": Localizer, "diagnose": Diagnostic, "attacks": Attack}
Step = tuple[str, Callable[[], Any]]
Slots = dict[str, tuple[str, dict[str, Any]]]
TRAINED = "1.mlp.down_proj"


class Waits(TrainerCallback):
    """How often the host waited in each training step, by line."""

    def __init__(self, gpu: SimulatedCuda | None) -> None:
        self.gpu = gpu
        self.steps: list[Counter[tuple[str, str]]] = []

        self.trained = torch.empty(0)
        """The weights at the end, before they are rounded to what is saved."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._before = Counter(self.gpu.waits) if self.gpu else Counter()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        if self.gpu:
            self.steps.append(Counter(self.gpu.waits) - self._before)

    def on_train_end(self, *_: Any, model: Any, **__: Any) -> None:
        self.trained = flat([weight for weight in model.parameters() if weight.requires_grad])


def flat(weights: list[Any]) -> torch.Tensor:
    """All of them as one vector on the CPU."""
    return torch.cat([weight.detach().float().flatten() for weight in weights]).cpu().clone()


def build(slot: str, name: str, options: dict[str, Any]) -> Any:
    kind = find(slot, name, KINDS[slot])
    return kind(kind.Config.model_validate(options))


class World:
    """Rows, and a folder with a random model of two blocks, its judges beside it."""

    def __init__(
        self, device: str, folder: Path, gpu: SimulatedCuda | None, precision: str = "auto", more: bool = False
    ) -> None:
        self.device, self.folder, self.gpu, self.precision, self.more = device, folder, gpu, precision, more
        rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        self.rows = {name: examples_from_rows(found, name) for name, found in rows.items()}
        self.splits = Splits(self.rows["forget"], self.rows["retain"], holdout=self.rows["neighbour"])
        self.few = Splits(self.rows["forget"][:2], self.rows["retain"][:2])
        self.waits: dict[str, list[int]] = {}
        self.lines: Counter[tuple[str, str]] = Counter()

    def load(self, **options: Any) -> LanguageModel:
        """A model of its own."""
        config = {"name": str(self.folder), "device": self.device, "precision": self.precision, **options}
        return load_model(ModelConfig.model_validate(config))

    @cached_property
    def original(self) -> LanguageModel:
        """A model that no step changes."""
        return self.load()

    @cached_property
    def _model(self) -> LanguageModel:
        return self.load()

    @contextmanager
    def lent(self) -> Iterator[LanguageModel]:
        """The model that steps change, given back as it was loaded."""
        model = self._model
        first = {name: weight.detach().clone() for name, weight in model.network.named_parameters()}
        try:
            yield model
        finally:
            model.narrow()
            with torch.no_grad():
                for name, weight in model.network.named_parameters():
                    weight.copy_(first[name]).requires_grad_(True).grad = None

    def train(self, name: str, slots: Slots, **options: Any) -> list[float]:
        """Two steps of one row; how far the trained weights went."""
        with self.lent() as model:
            model.freeze_but([key for key, _ in model.network.named_parameters() if TRAINED in key])
            return self._steps_of(model, name, slots, options)

    def adapt(self, name: str, slots: Slots) -> list[float]:
        """The same of an adapter."""
        model = self.load()
        add_lora(model, [key for key, _ in model.network.named_parameters() if TRAINED in key], LoraConfig(r=4), 0)
        return self._steps_of(model, name, slots, {})

    def _steps_of(self, model: LanguageModel, name: str, slots: Slots, options: dict[str, Any]) -> list[float]:
        forget, retain, combine, edit = (build(slot, *slots[slot]) for slot in ("forget", "retain", "combine", "edit"))
        config = {"lr": 0.1, "epochs": 1, "batch_size": 1, "checkpoints": False, "optimizer": "sgd"} | options
        train, guard, waits = TrainConfig.model_validate(config), GuardConfig(utility_floor=None), Waits(self.gpu)
        before = flat(model.trainable())
        job = TrainingJob(model, train, guard, 0, self.folder / name)
        prepared = prepare(job, Method(forget, retain, combine, edit), self.few.forget, self.few.retain)
        for loss in (forget, retain):
            loss.start(model, combine.project)
        if prepared.edit is not None:
            apply_edit(job, prepared.edit, prepared.held_out)
        done = fit(job, prepared.task, prepared.held_out, callbacks=[waits])
        self.check_device(model)
        self.waits[name] = [step.total() for step in waits.steps]
        for step in waits.steps:
            self.lines.update(step)
        self._steps = done.steps
        moved: list[float] = (waits.trained - before).tolist()
        return moved

    def check_device(self, model: LanguageModel) -> None:
        assert {one.device for one in model.network.parameters()} == {torch.device(self.device)}

    def variants(self, slot: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """(step, plug-in, options)."""
        for name in names(slot):
            step = f"{slot}/{name}"
            yield step, name, OPTIONS.get(step, {})
            for place, options in enumerate(MORE.get(step, []) if self.more else []):
                yield f"{step}/{place}", name, options

    def training(self) -> Iterator[Step]:
        """Every forget and retain loss, combination rule, edit and optimizer, and an adapter."""
        usual: Slots = {
            "forget": ("npo", {}),
            "retain": ("nll", {}),
            "combine": ("weighted_sum", {}),
            "edit": ("none", {}),
        }
        for slot in usual:
            for step, name, options in self.variants(slot):
                if not getattr(find(slot, name, KINDS[slot]), "trains", True):
                    continue
                slots = usual | {slot: (name, options)}
                yield step, lambda step=step, slots=slots: self.train(step, slots)
        yield "adapter/lora", lambda: self.adapt("adapter/lora", usual)
        for name in (*names("optimizers"), "adamw_torch"):
            yield (
                f"optimizers/{name}",
                lambda name=name: self.train(f"optimizers/{name}", usual, optimizer=name, lr=1e-3),
            )

    def choosing(self) -> Iterator[Step]:
        """Every localizer."""
        for step, name, options in self.variants("localize"):
            yield step, lambda name=name, options=options: self.localize(name, options)

    def localize(self, name: str, options: dict[str, Any]) -> None:
        with self.lent() as model:
            assert build("localize", name, options).select(model, self.splits, 0)

    def measuring(self) -> Iterator[Step]:
        """Every metric of rows, of sets and of depth, with judges of our own."""
        yield "metrics", self.measure

    def measure(self) -> dict[str, dict[str, float | None]]:
        """Role -> metric -> value."""
        folder = str(self.folder)
        judge = {"judges": [{"model": folder, "max_tokens": 8, "attempts": 1}]}
        config = EvaluateConfig.model_validate(
            {
                "metrics": names("evaluate/metrics"),
                "set_metrics": names("evaluate/set_metrics"),
                "max_new_tokens": TOKENS,
                "samples": 1,
                "cache": False,
                "max_rows": 1,
                "options": {
                    "entailment": {"model": f"{folder}/nli", "min_overlap": 0.0},
                    "gibberish": {"model": f"{folder}/gibberish"},
                    "cosine_similarity": {"encoder": f"{folder}/encoder"},
                    "judged_similarity": judge,
                    "judged_naturalness": judge,
                },
            }
        )
        roles = {"forget": "forget", "retain": "retain", "holdout": "neighbour"}
        data = {role: self.folder / f"{split}.jsonl" for role, split in roles.items()}
        plan = data_plan(data, config, 0, {"device": self.device, "precision": self.precision})
        (found,) = evaluate_models(
            [folder], plan, original=folder, reference=folder, whitebox=names("evaluate/whitebox")
        )
        scores = found.record.scores
        return {role: {name: score.value for name, score in one.items()} for role, one in scores.items()}

    def attacks(self) -> Iterator[Step]:
        """Every attack, with quick options."""
        for name in names("attacks"):
            yield f"attacks/{name}", lambda name=name: self.attack(name)

    @cached_property
    def _ground(self) -> AttackContext:
        config = EvaluateConfig(max_new_tokens=TOKENS)
        rows, original = self.few.forget[:1], self.original
        context = AttackContext(
            self._model,
            self.splits,
            rows,
            Labeller(config.kinds),
            config,
            load_original=lambda: original,
            load_retrained=lambda: original,
        )
        said = context.ask_directly()
        return replace(context, original_plain=said, unlearned_plain=said)

    def attack(self, name: str) -> list[Any]:
        context = self._ground
        with context.model.evaluating():
            attempts = list(build("attacks", name, ATTACKS.get(name, {})).run(context))
        assert attempts
        self.check_device(context.model)
        return [list(one.knowledge) for one in attempts]

    @cached_property
    def logged(self) -> list[StepLog]:
        """What a run logs whose losses look at hidden states, and whose rule at both gradients."""
        slots: Slots = {"forget": ("misdirection", {}), "retain": ("hidden_mse", {})}
        self.train("logged", slots | {"combine": ("orthogonal", {}), "edit": ("none", {})})
        return self._steps

    def diagnostics(self) -> Iterator[Step]:
        """Every diagnostic, those of logged values with what a training logged."""
        for step, name, options in self.variants("diagnose"):
            yield step, lambda name=name, options=options: self.diagnose(name, options)

    def diagnose(self, name: str, options: dict[str, Any]) -> str:
        loaders: Any = {"original": lambda: self.original, "unlearned": lambda: self.original}
        context = DiagnosticContext(loaders, self.splits, steps=self.logged, max_rows=options.get("max_rows", 1))
        return str(build("diagnose", name, options).measure(context).sentence)

    def files(self) -> Iterator[Step]:
        """A model that was trained on the device comes back from its files."""
        yield "files/weights", self.save

    def save(self) -> None:
        with self.lent() as model:
            with torch.no_grad():
                model.network.get_parameter(next(iter(dict(model.network.named_parameters())))).mul_(1.5)
            model.finish()
            save_model(model, self.folder / "saved")
            again = self.load(name=str(self.folder / "saved"))
            for one, other in zip(model.network.parameters(), again.network.parameters(), strict=True):
                assert torch.equal(one, other.to(one.dtype))


PARTS = ("training", "choosing", "measuring", "attacks", "diagnostics", "files")


def run(world: World, only: tuple[str, ...]) -> dict[str, Any]:
    """What every step found, and what went wrong; of the steps whose names begin with one of `only`."""
    failed, found = {}, {}
    for part in PARTS:
        for name, step in getattr(world, part)():
            if not name.startswith(only):
                continue
            try:
                found[name] = step()
            except Exception as error:
                if os.environ.get("EXPUNGE_TRACEBACK"):
                    traceback.print_exc()
                failed[name] = f"{type(error).__name__}: {error}"
    return {"failed": failed, "found": found}


def simulate(given: argparse.Namespace, only: tuple[str, ...]) -> dict[str, Any]:
    """The same on a simulated device, with what was refused and waited for."""
    with SimulatedCuda(old=given.old, float64=not given.no_float64) as gpu:
        world = World(given.device, given.folder, gpu, given.precision, given.more)
        return run(world, only) | {
            "precision": world.original.precision,
            "mixed": [f"{line}: {text}" for line, text in gpu.errors],
            "waits": {} if given.no_float64 else world.waits,
            "lines": [f"{count} {kind} {line}" for (line, kind), count in world.lines.most_common(40)],
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("device")
    parser.add_argument("folder", type=Path)
    parser.add_argument("only", nargs="*")
    parser.add_argument("--precision", default="auto")
    for flag in ("--simulated", "--old", "--no-float64", "--more", "--accelerate-cpu"):
        parser.add_argument(flag, action="store_true")
    torch.set_num_threads(1)
    scaling._START = 2.0**8  # no step of two is left out because float16 overflows at the usual scale
    gc.freeze()  # every training collects garbage: without a look through imported modules
    for line in " ".join(sys.argv[1:]).split(" then "):
        given = parser.parse_intermixed_args(line.split())
        only = tuple(given.only) or ("",)
        AcceleratorState._reset_state(reset_partial_state=True)
        os.environ["ACCELERATE_USE_CPU"] = str(given.accelerate_cpu).lower()
        precision.has_float64 = lambda device, lacks=given.no_float64: not lacks or device.type == "cpu"
        if given.simulated:
            print(json.dumps(simulate(given, only)), flush=True)
        else:
            world = World(given.device, given.folder, None, given.precision, given.more)
            print(json.dumps(run(world, only) | {"precision": world.original.precision}), flush=True)
    os._exit(0)  # the autograd engine's thread for a simulated device does not end


if __name__ == "__main__":
    main()
