"""Peak memory of an NPO run against plain fine-tuning of the same model: `python benchmarks/npo_memory.py`.

Each runs in a process of its own, five steps of the same batches through the same trainer; the figure is the process's
largest resident set. The plain one trains on the retain rows alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _common import model, report, rows

from expunge.combine.weighted_sum import WeightedSum
from expunge.core.provenance import peak_memory_mb
from expunge.forget.npo import NPO
from expunge.losses.base import Loss, Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import RowSet
from expunge.retain.kl import KL
from expunge.retain.nll import NLL
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.fit import fit
from expunge.train.job import NOTHING, Stream, Task, TrainingJob
from expunge.train.teach import Alone
from expunge.train.unlearn import make_stream

STEPS, BATCH = 5, 8
PROMPT, ANSWER = 40, 20


def train(kind: str) -> None:
    """One training run; prints its peak memory in MB."""
    network = model()
    vocabulary = network.base.config.vocab_size
    forget = rows(STEPS * BATCH, PROMPT, ANSWER, vocabulary, 0)
    retain = rows(STEPS * BATCH, PROMPT, ANSWER, vocabulary, 1)
    tasks = {
        "plain": lambda: Task(Stream("teach", NLL(NLL.Config()), RowSet(retain)), NOTHING, Alone(None)),
        "npo": lambda: _two(network, NPO(NPO.Config()), forget, NLL(NLL.Config()), retain),
        "npo_kl": lambda: _two(network, NPO(NPO.Config()), forget, KL(KL.Config()), retain),
    }
    settings = TrainConfig(epochs=1, batch_size=BATCH, checkpoints=False)
    with tempfile.TemporaryDirectory() as folder:
        guard = GuardConfig(utility_floor=None, rows=8)
        fit(TrainingJob(network, settings, guard, 0, Path(folder)), tasks[kind]())
    print(json.dumps({"peak_mb": peak_memory_mb()}))


def _two(network: LanguageModel, forget_loss: Loss, forget: list, retain_loss: Loss, retain: list) -> Task:
    return Task(
        make_stream("forget", forget_loss, Setup(network, (), forget, "0/forget", 1)),
        make_stream("retain", retain_loss, Setup(network, (), retain, "0/retain", 1)),
        WeightedSum(WeightedSum.Config()),
    )


def _peak(kind: str) -> float:
    result = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.strip().splitlines()[-1])["peak_mb"])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1])
    else:
        peaks = {kind: _peak(kind) for kind in ("plain", "npo", "npo_kl")}
        for kind in ("npo", "npo_kl"):
            report(
                f"peak memory, {kind} / plain fine-tuning",
                ratio=peaks[kind] / peaks["plain"],
                run_mb=peaks[kind],
                plain_mb=peaks["plain"],
            )
