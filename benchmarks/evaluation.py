"""Evaluation against its minimum cost: `python benchmarks/evaluation.py`.

The floor is one length-sorted forward over every distinct sequence (logits at label positions) plus one length-sorted
generation over every prompt with transformers' own `generate`. Samples are left out, so that both do the same work.
"""

from __future__ import annotations

import statistics
import sys

import torch
from _common import model, paired_seconds, ratio, report

from expunge.data.base import DataConfig
from expunge.data.batch import by_length
from expunge.data.load import load_splits
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect, sample_rows
from expunge.evaluate.score import item_values, load_metrics, needs_of, score
from expunge.models.forward import score_rows

ROWS = 16
NEW_TOKENS = 24


def main(repeats: int) -> None:
    """Print the ratio of our evaluation to the floor."""
    network = model()
    names = ("forget", "retain", "neighbour", "general")
    rows = sample_rows(load_splits(DataConfig(**{name: f"people:{name}" for name in names})), ROWS, 0)
    config = EvaluateConfig(samples=0, max_new_tokens=NEW_TOKENS)
    metrics = {name: metric for name, metric in load_metrics(config).items() if "samples" not in metric.needs}
    encoder = network.encoder
    examples = [row for split in rows.values() for row in split]
    sequences = {
        encoder.answer(row.question, text)
        for row in examples
        for text in (row.answer, row.paraphrased_answer, *row.perturbed_answer)
    }
    prompts = [encoder.prompt(text) for row in examples for text in (row.question, row.paraphrased_question)]

    def ours() -> None:
        score(item_values(collect(network, rows, needs_of(metrics), config, 0), metrics), metrics, 0)

    @torch.inference_mode()
    def floor() -> None:
        score_rows(network, list(sequences))
        for indices in by_length([len(prompt) for prompt in prompts], config.token_budget):
            width = max(len(prompts[index]) for index in indices)
            ids = torch.zeros(len(indices), width, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for place, index in enumerate(indices):
                ids[place, width - len(prompts[index]) :] = torch.tensor(prompts[index])
                mask[place, width - len(prompts[index]) :] = 1
            network.base.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
            )

    our_seconds, floor_seconds = paired_seconds(ours, floor, repeats)
    report(
        "evaluation / one sorted forward and one sorted generation",
        ratio=ratio(our_seconds, floor_seconds),
        our_seconds=statistics.median(our_seconds),
        floor_seconds=statistics.median(floor_seconds),
        sequences=float(len(sequences)),
        prompts=float(len(prompts)),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
