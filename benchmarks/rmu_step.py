"""An RMU step against the plain way, on the same batches: `python benchmarks/rmu_step.py [REPEATS]`.

Plain: two whole models, full forwards with logits, gradients for every tensor up to the steered layer, and only then an
optimizer over three matrices. Ours: the states below the trained blocks and those of the original model are cached, the
forward stops at the layer, and only three matrices get gradients. Time is that of one process running both in turn;
peak memory that of a process of its own for each. Both in float32, so that their updates can be compared.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from _common import model, paired_seconds, ratio, report, rows
from torch import Tensor

from expunge.combine.base import Step
from expunge.combine.weighted_sum import WeightedSum
from expunge.core.provenance import peak_memory_mb
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.forget.misdirection import Misdirection
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward
from expunge.retain.hidden_mse import HiddenMSE
from expunge.train.unlearn import make_stream

BATCH, PROMPT, ANSWER = 8, 40, 24
LAYER, TRAINED = 7, (5, 6, 7)
COEFFICIENT, RETAIN_WEIGHT = 6.5, 1200.0
LR = 1e-3

Run = Callable[[], None]


def data(network: LanguageModel) -> tuple[list[Encoded], list[Encoded]]:
    """Forget and retain rows of 64 tokens each."""
    vocabulary = network.base.config.vocab_size
    return rows(BATCH, PROMPT, ANSWER, vocabulary, 0), rows(BATCH, PROMPT, ANSWER, vocabulary, 1)


def matrices(network: LanguageModel) -> list[torch.nn.Parameter]:
    """`down_proj` of the trained blocks."""
    return [network.blocks()[index][1].mlp.down_proj.weight for index in TRAINED]


def ours(network: LanguageModel) -> tuple[Run, Tensor]:
    """A step through our losses, and the direction that it steers to."""
    network.freeze_but([f"{network.blocks()[index][0]}.mlp.down_proj.weight" for index in TRAINED])
    forget_rows, retain_rows = data(network)
    absolute = {"tokens": "all", "normalise": False}
    forget = Misdirection(Misdirection.Config(coefficient=COEFFICIENT, **absolute))
    names = [Example(str(index)) for index in range(BATCH)]
    streams = [
        make_stream("forget", forget, Setup(network, names, forget_rows, "0/forget", 9)),
        make_stream("retain", HiddenMSE(HiddenMSE.Config(**absolute)), Setup(network, names, retain_rows, "0/r", 9)),
    ]
    batches = [collate(stream.rows.sequences, range(BATCH)) for stream in streams]
    combine = WeightedSum(WeightedSum.Config(retain_weight=RETAIN_WEIGHT))
    optimizer = torch.optim.AdamW(network.trainable(), lr=LR, weight_decay=0.0)

    def loss(place: int) -> Tensor:
        return streams[place].loss.loss(Forward(network, batches[place], streams[place].rows))

    def step() -> None:
        optimizer.zero_grad()
        combine.accumulate(Step(lambda: loss(0), lambda: loss(1), lambda value: value.backward(), network.trainable()))
        optimizer.step()

    return step, forget.directions[""]


def plain(network: LanguageModel, direction: Tensor) -> Run:
    """The same step without caches."""
    updated, frozen = network.base, copy.deepcopy(network.base).requires_grad_(False)
    updated.requires_grad_(True)
    for _, block in network.blocks()[LAYER + 1 :]:
        block.requires_grad_(False)
    forget, retain = (collate(part, range(BATCH)) for part in data(network))
    optimizer = torch.optim.AdamW(matrices(network), lr=LR, weight_decay=0.0)

    def states(which: torch.nn.Module, ids: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = which.model.layers[LAYER].register_forward_hook(lambda _, __, output: seen.append(output))
        which(input_ids=ids)
        handle.remove()
        return seen[0]

    def step() -> None:
        updated.zero_grad()
        steered = states(updated, forget.input_ids)
        loss = torch.nn.functional.mse_loss(steered, (COEFFICIENT * direction).expand_as(steered))
        with torch.no_grad():
            original = states(frozen, retain.input_ids)
        held = torch.nn.functional.mse_loss(states(updated, retain.input_ids), original)
        (loss + RETAIN_WEIGHT * held).backward()
        optimizer.step()

    return step


def main(repeats: int) -> None:
    """Ratio of times and of memory, and how far the two sets of matrices end up from each other."""
    peaks = {kind: _peak(kind) for kind in ("ours", "plain")}  # first: a child starts with its parent's peak
    first, second = (model(precision="float32") for _ in range(2))
    start = [matrix.detach().clone() for matrix in matrices(first)]
    our_step, direction = ours(first)
    plain_step = plain(second, direction)
    fast, slow = paired_seconds(our_step, plain_step, repeats)
    moves = [
        [matrix.detach() - old for matrix, old in zip(matrices(one), start, strict=True)] for one in (first, second)
    ]
    apart = max(float((mine - theirs).norm() / theirs.norm()) for mine, theirs in zip(*moves, strict=True))
    report(
        "RMU step, plain / ours",
        ratio=ratio(slow, fast),
        our_seconds=statistics.median(fast),
        plain_seconds=statistics.median(slow),
        relative_difference_of_updates=f"{apart:.1e}",
    )
    report(
        "RMU peak memory, ours / plain",
        ratio=peaks["ours"] / peaks["plain"],
        our_mb=peaks["ours"],
        plain_mb=peaks["plain"],
    )


def alone(kind: str) -> None:
    """A few steps of one of the two; prints the peak memory of the process in MB."""
    network = model(precision="float32")
    if kind == "ours":
        step, _ = ours(network)
    else:
        step = plain(network, torch.ones(network.base.config.hidden_size))
    for _ in range(3):
        step()
    print(json.dumps({"peak_mb": peak_memory_mb()}))


def _peak(kind: str) -> float:
    result = subprocess.run([sys.executable, __file__, kind], capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.strip().splitlines()[-1])["peak_mb"])


if __name__ == "__main__":
    if sys.argv[1:] in (["ours"], ["plain"]):
        alone(sys.argv[1])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
