"""An NPO step against a GradDiff step, on the same batches, in one process: `python benchmarks/npo_step.py`.

NPO needs the original model's log-probabilities. They are computed once before training, so that a step costs what a
GradDiff step costs. The time of that one pass is reported too.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from _common import model, paired_seconds, ratio, report, rows

from expunge.combine.base import Step
from expunge.combine.weighted_sum import WeightedSum
from expunge.data.batch import collate
from expunge.forget.gradient_ascent import GradientAscent
from expunge.forget.npo import NPO
from expunge.losses.base import Loss
from expunge.models.forward import Forward, Needs, row_set
from expunge.retain.nll import NLL

BATCH = 8
PROMPT, ANSWER = 40, 20


def main(repeats: int) -> None:
    """Print the ratio of the two steps."""
    network = model()
    vocabulary = network.base.config.vocab_size
    forget_rows = rows(BATCH, PROMPT, ANSWER, vocabulary, 0)
    forget, retain = (collate(part, range(BATCH)) for part in (forget_rows, rows(BATCH, PROMPT, ANSWER, vocabulary, 1)))
    start = time.perf_counter()
    kept = row_set(network, forget_rows, Needs(reference_logp=True))
    cache_seconds = time.perf_counter() - start
    optimizer = torch.optim.AdamW(network.trainable(), lr=1e-9, fused=True)
    combine, nll = WeightedSum(WeightedSum.Config()), NLL(NLL.Config())

    def step(loss: Loss) -> None:
        combine.accumulate(
            Step(
                forget=lambda: loss.loss(Forward(network, forget, kept)),
                retain=lambda: nll.loss(Forward(network, retain)),
                backward=lambda value: value.backward(),
                parameters=network.trainable(),
            )
        )
        optimizer.step()
        optimizer.zero_grad()

    npo, ascent = NPO(NPO.Config()), GradientAscent(GradientAscent.Config())
    ours, plain = paired_seconds(lambda: step(npo), lambda: step(ascent), repeats)
    report(
        "NPO step / GradDiff step",
        ratio=ratio(ours, plain),
        npo_seconds=statistics.median(ours),
        grad_diff_seconds=statistics.median(plain),
        reference_cache_seconds_for_8_rows=cache_seconds,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
