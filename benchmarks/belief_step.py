"""A BS-T step against GradDiff's, a BS-S epoch against its base's on the same rows: `python benchmarks/belief_step.py`.

BS-T gathers k + 1 logits per position instead of building a target over the vocabulary. BS-S off-policy samples once,
in `prepare`, from prompts that are encoded once for all their draws; its epoch then should cost what the base costs on
stored answers and samples together. The sampling is timed beside it.
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
from expunge.data.example import Example
from expunge.forget.belief_sequence import BeliefSequence
from expunge.forget.belief_token import BeliefToken
from expunge.forget.gradient_ascent import GradientAscent
from expunge.losses.base import Loss, Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, row_set
from expunge.models.sample import Sampler
from expunge.retain.nll import NLL

BATCH = 8
PROMPT, ANSWER = 40, 20
FORGET_ROWS = 16
SAMPLES = 3


def main(repeats: int) -> None:
    """Print both comparisons."""
    network = model()
    token_steps(network, repeats)
    sequence_epochs(network, repeats)


def token_steps(network: LanguageModel, repeats: int) -> None:
    """Whole steps, forget and retain, with the optimizer."""
    vocabulary = network.base.config.vocab_size
    forget, retain = (collate(rows(BATCH, PROMPT, ANSWER, vocabulary, seed), range(BATCH)) for seed in (0, 1))
    optimizer = torch.optim.AdamW(network.trainable(), lr=1e-9, fused=True)
    combine, nll = WeightedSum(WeightedSum.Config()), NLL(NLL.Config())

    def step(loss: Loss) -> None:
        combine.accumulate(
            Step(
                forget=lambda: loss.loss(Forward(network, forget)),
                retain=lambda: nll.loss(Forward(network, retain)),
                backward=lambda value: value.backward(),
                parameters=network.trainable(),
            )
        )
        optimizer.step()
        optimizer.zero_grad()

    belief, ascent = BeliefToken(BeliefToken.Config(k=20)), GradientAscent(GradientAscent.Config())
    ours, plain = paired_seconds(lambda: step(belief), lambda: step(ascent), repeats)
    report(
        "BS-T step / GradDiff step",
        ratio=ratio(ours, plain),
        belief_token_seconds=statistics.median(ours),
        grad_diff_seconds=statistics.median(plain),
    )


def sequence_epochs(network: LanguageModel, repeats: int) -> None:
    """One epoch of gradients: BS-S off-policy, and its base on the very same sequences as stored rows."""
    stored = rows(FORGET_ROWS, PROMPT, ANSWER, network.base.config.vocab_size, 0)
    loss = BeliefSequence(BeliefSequence.Config(refresh="off_policy", samples=SAMPLES))
    examples = [Example(str(row), "?", "!") for row in range(FORGET_ROWS)]
    loss.prepare(Setup(network, examples, stored, "0/forget", 2))
    names = [[f"0/forget/belief/0/{row}/{number}" for number in range(SAMPLES)] for row in range(FORGET_ROWS)]
    start = time.perf_counter()
    drawn = Sampler(network, examples, stored, loss.config).draw(range(FORGET_ROWS), names)
    sampling_seconds = time.perf_counter() - start
    kept = row_set(network, stored)
    sequences = [
        one for row, samples in zip(stored, drawn, strict=True) for one in (row, *(s.encoded for s in samples))
    ]
    base, same_size = BeliefToken(BeliefToken.Config()), row_set(network, sequences)

    def epoch(filler: Loss, over: RowSet, size: int) -> None:
        for first in range(0, len(over.sequences), size):
            indices = range(first, min(first + size, len(over.sequences)))
            filler.loss(Forward.of(network, over, indices)).backward()
        network.network.zero_grad()

    ours, plain = paired_seconds(
        lambda: epoch(loss, kept, BATCH), lambda: epoch(base, same_size, BATCH * (1 + SAMPLES)), repeats
    )
    report(
        "BS-S off-policy epoch / its base on as many sequences",
        ratio=ratio(ours, plain),
        belief_sequence_seconds=statistics.median(ours),
        base_seconds=statistics.median(plain),
        sampling_seconds=sampling_seconds,
        empty_samples=loss.logs["belief_empty"],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
