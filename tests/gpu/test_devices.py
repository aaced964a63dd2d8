"""All that touches a device, on a simulated one in a process of its own, and on a real one where there is one.

On a machine with a CUDA card: `python -m pytest -m gpu tests/gpu` (see docs/devices.md).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import write_world
from transformers import PreTrainedTokenizerFast

from expunge.core.plugins import names

PROGRAM = Path(__file__).with_name("everything.py")
SLOTS = ("forget", "retain", "combine", "edit", "optimizers", "localize", "attacks", "diagnose")
simulated = pytest.mark.skipif(
    not hasattr(torch._C, "_acc"), reason="this torch has no device guard for a simulated CUDA device"
)


@pytest.fixture(scope="module")
def world(words: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), words)


def carried_out(*arguments: str | Path) -> list[Any]:
    """What each part of a command line found, in one process."""
    done = subprocess.run([sys.executable, str(PROGRAM), *map(str, arguments)], capture_output=True, text=True)
    parts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"failed"')]
    assert len(parts) == 1 + arguments.count("then"), done.stderr[-3000:]
    for found in parts:
        assert found["failed"] == {}
        assert found.get("mixed", []) == []
        for name, steps in found.get("waits", {}).items():
            assert len(steps) == 2, name
            assert steps[1] <= 1, (name, found["lines"])
    return parts


@pytest.fixture(scope="module")
def on_simulated(world: Path, words: PreTrainedTokenizerFast) -> list[Any]:
    """Everything on the second of two cards; some on one without bfloat16, on one without float64, and on the CPU."""
    some = ("forget/npo", "forget/misdirection", "combine/orthogonal")
    wide = ("forget/max_entropy", "combine", "localize/mutual", "attacks/sampling", "diagnose/alignment")
    return carried_out(
        *("cuda:1", world, "--simulated", "then"),
        *("cuda:0", world, "--simulated", "--old", "--accelerate-cpu", *some, "then"),
        *("cuda:0", world, "--simulated", "--no-float64", "--precision", "float32", *wide, "then"),
        *("cpu", world, "--precision", "float32", *some, "then"),
        *("cpu", write_world(world / "float16", words, torch.float16), "--precision", "float32", "metrics", "diagnose"),
    )


@simulated
def test_on_a_simulated_second_gpu_nothing_mixes_and_a_step_waits_once(on_simulated: list[Any]) -> None:
    """Every plug-in. The first step may also keep states of the original model, computed when first asked for."""
    found = on_simulated[0]
    assert found["precision"] == "bfloat16"
    plugins = {f"{slot}/{name}" for slot in SLOTS for name in names(slot)} - {"forget/none", "retain/none"}
    assert plugins - set(found["found"]) == set()
    scores = found["found"]["metrics"]
    known = {name for one in scores.values() for name, value in one.items() if value is not None}
    assert {"cosine_similarity", "entailment", "gibberish", "keyword_recall", "sample_leak"} - known == set()
    assert {"uds", "cka", "krd"} - set(scores["forget"]) == set(), "they may be absent for a reason, which is a score"
    moved = [value for name, value in found["found"].items() if name.startswith(("forget/", "retain/", "combine/"))]
    assert all(any(values) and all(map(math.isfinite, values)) for values in moved)


@simulated
def test_on_a_simulated_card_without_bfloat16_losses_are_scaled(on_simulated: list[Any]) -> None:
    """Volta and Turing: float16 products beside the checkpoint's bfloat16 weights give what the CPU gives."""
    _, old, no_float64, wide, *_ = on_simulated
    assert (old["precision"], no_float64["precision"]) == ("float16", "float32")
    assert alike(old["found"], wide["found"], TOLERANCE["float16"]) == {}


@simulated
def test_metrics_and_diagnostics_of_a_half_precision_checkpoint_on_a_cpu(on_simulated: list[Any]) -> None:
    """Stored in float16, computed in float32; losses are near those of the bfloat16 checkpoint on the device."""
    first, float16 = on_simulated[0]["found"], on_simulated[-1]["found"]
    assert {f"diagnose/{name}" for name in names("diagnose")} <= set(float16)
    for role, scores in float16["metrics"].items():
        assert abs(first["metrics"][role]["mia_loss"] - scores["mia_loss"]) < 0.05 * scores["mia_loss"]


def alike(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> dict[str, float]:
    """Trainings whose weights went elsewhere: name -> distance over the distance that they went."""
    far = {}
    for name in expected:
        if name.startswith(("forget/", "retain/", "combine/", "edit/")):
            one, other = torch.tensor(found[name]), torch.tensor(expected[name])
            far[name] = float((one - other).norm() / other.norm())
    return {name: error for name, error in far.items() if not error <= tolerance}


TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15, "float16": 0.05}
"""Of the way that trained weights went; the narrower ones are those of the products."""
SCORE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.02}


@pytest.fixture(scope="module")
def on_cpu(world: Path) -> Any:
    return carried_out("cpu", world, "--precision", "float32", "--more")[0]["found"]


def check_against_cpu(device: str, world: Path, on_cpu: Any, precision: str, *flags: str) -> None:
    """Everything runs; weights go where those of the CPU go, and losses per token are those of the CPU."""
    (done,) = carried_out(device, world, "--precision", precision, "--more", *flags)
    found = done["found"]
    assert done["precision"] == precision
    assert set(found) == set(on_cpu)
    sampled = {name: on_cpu[name] for name in on_cpu if not name.startswith("forget/belief_sequence")}
    assert alike(found, sampled, TOLERANCE[precision]) == {}
    for role, scores in on_cpu["metrics"].items():
        for name in ("probability", "normalised_probability", "token_entropy", "mia_loss"):
            if scores.get(name) is not None:
                assert abs(found["metrics"][role][name] - scores[name]) <= SCORE[precision] * max(1, abs(scores[name]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_on_a_real_gpu(world: Path, on_cpu: Any, precision: str) -> None:
    check_against_cpu("cuda:0", world, on_cpu, precision)
