"""All that touches a device, on a simulated one in a process of its own, and on a real one where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PROGRAM = Path(__file__).with_name("everything.py")
QUICK = ("forget/misdirection", "combine/orthogonal/1")


@pytest.fixture(scope="module")
def half(
    words: PreTrainedTokenizerFast, facts: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random model stored in bfloat16, with its rows."""
    folder = tmp_path_factory.mktemp("half")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    words.save_pretrained(folder)
    rows = {name: facts[name][:4] for name in ("forget", "retain")}
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return folder


def carried_out(*arguments: str) -> Any:
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True)
    assert done.stdout.strip(), done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.skipif(not hasattr(torch._C, "_acc"), reason="this torch has no device guard for a simulated CUDA device")
def test_on_a_simulated_second_gpu_nothing_mixes_and_a_step_waits_once(half: Path) -> None:
    """The first step may also keep states of the original model, which are computed when they are first asked for."""
    found = carried_out("--simulated", "cuda:1", str(half), "training", *QUICK)
    assert found["failed"] == {}
    assert found["mixed"] == []
    assert set(found["waits"]) == set(QUICK)
    for steps in found["waits"].values():
        assert len(steps) == 2
        assert steps[1] == 1, found["lines"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("part", ["training", "measuring", "attacks", "diagnostics"])
def test_on_a_real_gpu(half: Path, part: str) -> None:
    print(torch.cuda.get_device_name(), torch.__version__, torch.version.cuda)
    assert carried_out("cuda:0", str(half), part) == {"failed": {}}
