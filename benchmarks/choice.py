"""Four-way questions: our choice path against four scored continuations: `python benchmarks/choice.py 1000 float32`.

The baseline is the plain way: for each question and each letter one forward pass over the whole text at batch 1, with
transformers' own logits at all positions. Both give the summed log-probability of every letter, which are compared:
in float32 they agree; under bfloat16 autocast the two differ by its rounding.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
from _common import model, report

from expunge.data.load import examples_from_rows
from expunge.data.sources._harness import ChoiceQuestion, harness_row
from expunge.data.sources.fictional import Fictional
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect

QUESTIONS = 1000
PART = 100
"""The two take turns, part by part, so that both see the same machine."""


def main(questions: int, precision: str | None) -> None:
    """Print the ratio of the baseline to our choice path."""
    network = model()
    network.precision = precision or network.precision
    source = Fictional(Fictional.Config(authors=60))
    rows = []
    for place, row in enumerate(source.rows("all")[:questions]):
        options = list(row["perturbed_answer"][:3])
        options.insert(place % 4, row["paraphrased_answer"])
        choice = ChoiceQuestion(row["question"], tuple(options), "ABCD"[place % 4])
        rows.append({"id": str(place), **harness_row(choice, "invented authors")})
    examples = examples_from_rows(rows, "choices")

    def ours(part: list) -> list[tuple[float, ...]]:
        found = collect(network, {"general": part}, frozenset({"choices"}), EvaluateConfig(cache=False), 0)
        return [item.choice_logp for item in found["general"]]

    @torch.inference_mode()
    def four_passes(part: list) -> list[tuple[float, ...]]:
        return [tuple(map(one_pass, network.encoder.choices(row))) for row in part]

    def one_pass(choice: object) -> float:
        with network.autocast():
            logits = network.base(torch.tensor([choice.ids])).logits[0].float()
        logp = logits[:-1].log_softmax(-1)
        return sum(float(logp[place - 1, choice.ids[place]]) for place in choice.places)

    with network.evaluating():
        ours(list(examples[:PART]))
        four_passes(list(examples[:2]))
        seconds: tuple[list[float], list[float]] = ([], [])
        differences, changed = [], 0
        for start in range(0, len(examples), PART):
            part = list(examples[start : start + PART])
            found = []
            for work, kept in zip((four_passes, ours), seconds, strict=True):
                begin = time.perf_counter()
                found.append(work(part))
                kept.append(time.perf_counter() - begin)
            for theirs, mine in zip(*found, strict=True):
                differences += [abs(one - other) for one, other in zip(theirs, mine, strict=True)]
                changed += max(range(4), key=theirs.__getitem__) != max(range(4), key=mine.__getitem__)
    ratios = [slow / fast for slow, fast in zip(*seconds, strict=True)]
    report(
        "four scored continuations at batch 1 / our choice path",
        ratio=sum(seconds[0]) / sum(seconds[1]),
        smallest_ratio_of_a_part=min(ratios),
        median_ratio_of_a_part=statistics.median(ratios),
        baseline_seconds=sum(seconds[0]),
        our_seconds=sum(seconds[1]),
        questions=float(len(examples)),
        largest_difference=max(differences),
        other_choices=float(changed),
        precision=network.precision,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else QUESTIONS, sys.argv[2] if len(sys.argv) > 2 else None)
