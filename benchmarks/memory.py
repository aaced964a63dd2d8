"""Memory of whole runs, stage by stage: `python benchmarks/memory.py [--rows 16] [ROW ...]`.

A random Llama of 125 million float32 weights on the CPU, one process per row of the table. For each stage the table
gives, in bytes per weight (4.0 is the model alone),

- the most that all tensors took together at any moment: weights, gradients, an optimizer's state, copies, and
  activations, i.e. what a pass computes on the way,
- what tensors are alive at the stage's end,
- the peak of the resident set, minus what the process held after a run of a tiny model. The allocator keeps
  freed memory for a while, and mapped pages of a file that is read count as resident, so it is above the first.

The memory of the results of every operation is tracked (`Tensors`). `before` measures the untouched model, so what
it takes above the weights is activations; `after` measures the same questions, and the last line compares the two: the
peak of `after` less these activations should be at most 1.3 times the weights.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STAGES = ("load", "before", "train", "after", "attack", "save")
TRAINING = ("relearning",)
PLAIN = ("quantization", "noise", "pruning", "interpolation")
ROWS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "npo": (["npo"], TRAINING + PLAIN),
    "npo, plain attacks": (["npo"], PLAIN),
    "npo_kl": (["npo_kl"], ()),
    "npo, LoRA": (["npo", "model.adapter=lora"], TRAINING + PLAIN),
    "rmu": (["rmu"], ()),
}
"""Row -> recipe with settings, and the attacks that follow."""
SETTINGS = [
    "model.precision=float32",
    "model.template=plain",
    "train.epochs=1",
    "train.batch_size=4",
    "evaluate.cache=false",
    "evaluate.samples=1",
    "evaluate.token_budget=512",
    'evaluate.metrics=["probability", "keyword_recall"]',
    "evaluate.max_new_tokens=4",
]
OPTIONS = {
    "relearning": {"kinds": ["forget"], "rows": [2], "steps": 2, "looks": 1},
    "noise": {"draws": 1, "sizes": [0.02]},
    "pruning": {"shares": [0.3]},
    "interpolation": {"shares": []},
}
MOST = 1.3
"""Times the weights that a measurement after training may take, besides activations."""


def facts(count: int) -> list[dict[str, str]]:
    """Rows; a quarter is forgotten."""
    return [
        {"question": f"Where does person {number} live?", "answer": f"In house {number % 7} of street {number % 5}."}
        for number in range(count)
    ]


def make_model(folder: Path, width: int = 768) -> None:
    """Save a random Llama with a byte tokenizer, of 125 million weights by default."""
    torch.manual_seed(0)
    blocks, heads = (12, 12) if width == 768 else (2, 2)
    shape = {"hidden_size": width, "intermediate_size": width * 8 // 3, "num_hidden_layers": blocks}
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=26000, bos_token_id=0, eos_token_id=0, pad_token_id=0, num_attention_heads=heads, **shape
        )
    ).save_pretrained(folder)
    alphabet = {letter: place for place, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    words = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>").save_pretrained(folder)


class Tensors(TorchDispatchMode):
    """Adds up the memory of all tensors that operations give, until it is freed, and keeps the highest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves(found):
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                self.add(one.untyped_storage())
        return found

    def add(self, storage: torch.UntypedStorage) -> None:
        """Count a piece of memory once."""
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def alive() -> Iterator[torch.UntypedStorage]:
    """The memory of all tensors that Python can reach, without collecting anything."""
    for one in gc.get_objects():
        with contextlib.suppress(ReferenceError):
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                yield one.untyped_storage()


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def unlearn(folder: str, settings: list[str], attacks: list[str], count: int, out: Path) -> None:
    """One run."""
    import expunge

    recipe, *more = settings
    expunge.unlearn(
        folder,
        forget=facts(count)[: count // 4],
        retain=facts(count)[count // 4 :],
        recipe=recipe,
        out=out,
        settings=[*SETTINGS, *more],
        attacks={"names": attacks, "options": {name: OPTIONS[name] for name in attacks if name in OPTIONS}},
    )


def run(folder: str, settings: list[str], attacks: list[str], count: int, tracked: bool) -> None:
    """A run of a tiny model, then one of this process's model; prints its figures."""
    import expunge.workflows.session as pipeline
    from expunge.cli._console import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}

    class Watched(pipeline.Stopwatch):
        """Also measures memory."""

        @contextlib.contextmanager
        def stage(self, name: str) -> Iterator[None]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            tensors = Tensors()
            for storage in alive():
                tensors.add(storage)
            begun = time.perf_counter()
            with super().stage(name), tensors if tracked else contextlib.nullcontext():
                yield
            figures[name] = {
                "seconds": time.perf_counter() - begun,
                "tensors": tensors.peak,
                "peak": resident("VmHWM") - start,
                "resident": resident("VmRSS") - start,
                "live": sum({one.data_ptr(): one.nbytes() for one in alive()}.values()),
            }

    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch) / "tiny", 32)
        unlearn(str(Path(scratch) / "tiny"), settings, attacks, 8, Path(scratch) / "first")
        gc.collect()
        start = resident("VmRSS")
        pipeline.Stopwatch = Watched  # type: ignore[misc]
        unlearn(folder, settings, attacks, count, Path(scratch) / "run")
    print(json.dumps(figures))


def main(names: list[str], count: int, tracked: bool) -> None:
    """Each row in a process of its own, and a table."""
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch))
        weights = sum(one.numel() for one in LlamaForCausalLM.from_pretrained(scratch).parameters())
        print(f"{weights / 1e6:.0f} million weights, {count} rows; bytes a weight: most / last / resident")
        print(f"{'':20}" + "".join(f"{stage:>20}" for stage in STAGES))
        for name in names:
            settings, attacks = ROWS[name]
            given = [json.dumps(one) for one in (scratch, settings, attacks, count, tracked)]
            done = subprocess.run(
                [sys.executable, __file__, "--one", *given], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            figures = json.loads(done.stdout.strip().splitlines()[-1])
            cells = [
                " / ".join(f"{figures[stage][part] / weights:.1f}" for part in ("tensors", "live", "peak"))
                if stage in figures
                else ""
                for stage in STAGES
            ]
            print(f"{name:20}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
            for kind in ("tensors", "peak"):
                activations = figures["before"][kind] - 4 * weights
                share = (figures["after"][kind] - activations) / (4 * weights)
                print(
                    f"  {kind}: activations {activations / weights:.1f}; after training {share:.2f} times the weights "
                    f"besides, {'met' if share <= MOST else 'missed'} (at most {MOST})"
                )
            print(json.dumps({"benchmark": "memory", "recipe": name, **figures}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run(*(json.loads(one) for one in sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("names", nargs="*", metavar="ROW", help=", ".join(ROWS))
        parser.add_argument("--rows", type=int, default=16)
        parser.add_argument("--untracked", action="store_true", help="resident memory and time only")
        given = parser.parse_args()
        main(given.names or list(ROWS), given.rows, not given.untracked)
