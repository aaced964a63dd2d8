"""Memory of whole runs, stage by stage: `python benchmarks/memory.py [RECIPE ...]`.

A random Llama of 125 million float32 weights on the CPU, one process a recipe. For each stage the table gives the peak
of the resident set within the stage less what the process held before the model was loaded, and the bytes of all
tensors that are alive at its end, both in bytes a weight: 4.0 is the model alone. Pages of mapped files count as
resident.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STAGES = ("load", "before", "train", "after", "attack", "save")
RECIPES: dict[str, list[str]] = {
    "npo": ["npo"],
    "npo_kl": ["npo_kl"],
    "npo, LoRA": ["npo", "model.adapter=lora"],
    "rmu": ["rmu"],
}
ATTACKS = ("relearning", "quantization", "noise", "pruning", "interpolation")
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
FACTS = [
    {"question": f"Where does person {number} live?", "answer": f"In house {number % 7} of street {number % 5}."}
    for number in range(16)
]


def make_model(folder: Path) -> None:
    """Save a random Llama of 125 million weights with a byte tokenizer."""
    torch.manual_seed(0)
    shape = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=26000, bos_token_id=0, eos_token_id=0, pad_token_id=0, **shape)
    ).save_pretrained(folder)
    alphabet = {letter: place for place, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    words = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<end>").save_pretrained(folder)


def live_bytes() -> int:
    """Bytes of the storages of all tensors that Python can reach, without collecting anything."""
    storages = {}
    for one in gc.get_objects():
        with contextlib.suppress(ReferenceError):
            if isinstance(one, torch.Tensor) and one.device.type == "cpu":
                storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(storages.values())


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def run(folder: str, settings: list[str]) -> None:
    """One run of this process; prints its figures."""
    import expunge
    import expunge.run as pipeline
    from expunge.cli._console import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    start = resident("VmRSS")

    class Watched(pipeline.Stopwatch):
        """Also measures memory."""

        @contextlib.contextmanager
        def stage(self, name: str) -> Iterator[None]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            begun = time.perf_counter()
            with super().stage(name):
                yield
            figures[name] = {
                "peak": resident("VmHWM") - start,
                "resident": resident("VmRSS") - start,
                "live": live_bytes(),
                "seconds": time.perf_counter() - begun,
            }

    pipeline.Stopwatch = Watched  # type: ignore[misc]
    recipe, *more = settings
    with tempfile.TemporaryDirectory() as scratch:
        expunge.unlearn(
            folder,
            forget=FACTS[:4],
            retain=FACTS[4:],
            recipe=recipe,
            out=Path(scratch) / "run",
            settings=[*SETTINGS, *more],
            attacks={"names": list(ATTACKS), "options": OPTIONS},
        )
    print(json.dumps(figures))


def main(names: list[str]) -> None:
    """Each recipe in a process of its own, and a table."""
    weights = 0
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch))
        weights = sum(one.numel() for one in LlamaForCausalLM.from_pretrained(scratch).parameters())
        print(f"{weights / 1e6:.0f} million weights; bytes a weight: peak resident / live tensors at the end")
        print(f"{'':12}" + "".join(f"{stage:>14}" for stage in STAGES))
        for name in names:
            done = subprocess.run(
                [sys.executable, __file__, "--one", scratch, *RECIPES[name]],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            figures = json.loads(done.stdout.strip().splitlines()[-1])
            cells = [
                f"{figures[stage]['peak'] / weights:.1f} / {figures[stage]['live'] / weights:.1f}" for stage in STAGES
            ]
            print(f"{name:12}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
            print(json.dumps({"benchmark": "memory", "recipe": name, **figures}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:] or list(RECIPES))
