"""Causal tracing against plain forwards: `python benchmarks/causal_tracing.py [facts] [cells] [draws]`.

The plain way runs the whole sequence through the whole model for each fact, block and noise draw, the draws as one
batch, with a hook that puts the clean value back. It is timed on a few (fact, block) cells spread over the depth, and
multiplied by the number of cells.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from _common import model, report

from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.data.load import load_examples
from expunge.localize._facts import Fact, find_fact, subject_of
from expunge.models.base import LanguageModel
from expunge.models.causal_restore import CausalRestorer, TraceResult, embedding_width, input_embeddings

NOISE = 0.3
"""About three standard deviations of the embedded model's input embeddings; the time does not depend on it."""


def found(network: LanguageModel, count: int) -> list[Fact]:
    """Facts of `people` whose question names its subject, from the split to forget and the one to keep."""
    rows: list[Example] = [
        row for split in ("forget", "retain") for row in load_examples(DataSpec(name="people", split=split))
    ]
    named = [row for row in rows if row.subject and row.subject in (row.question or "")][:count]
    return [find_fact(network.encoder, row, subject_of(row) or "", keywords=True) for row in named]


def noise_of(network: LanguageModel, fact: Fact, draws: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return NOISE * torch.randn(draws, len(fact.subject), embedding_width(network), generator=generator)


@torch.no_grad()
def plain_cell(network: LanguageModel, fact: Fact, layer: int, draws: int) -> float:
    """Probability with one block's clean feed-forward output put back, by whole forwards."""
    ids = torch.tensor(fact.encoded.ids)
    embedded = input_embeddings(network, ids)[None]
    module: Any = network.blocks()[layer][1].mlp
    kept: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: kept.append(output[0, fact.last].clone()))
    with network.evaluating(), network.autocast():
        network.decoder(inputs_embeds=embedded)
        handle.remove()

        def put_back(_: Any, __: Any, output: torch.Tensor) -> None:
            output[:, fact.last] = kept[0]

        handle = module.register_forward_hook(put_back)
        runs = embedded.repeat(draws, 1, 1)
        runs[:, list(fact.subject)] += noise_of(network, fact, draws)
        logits = network.base(inputs_embeds=runs).logits
        handle.remove()
    places = list(fact.encoded.places)
    logp = logits[:, [place - 1 for place in places]].float().log_softmax(-1)
    return float(logp[:, range(len(places)), ids[places]].mean(-1).exp().mean())


def main(num_facts: int = 40, cells: int = 6, draws: int = 10) -> None:
    """Print the seconds of both ways, and their ratio."""
    network = model()
    facts = found(network, num_facts)
    runs = CausalRestorer(network)
    start = time.perf_counter()
    traced: list[TraceResult] = [
        runs.trace(fact.encoded.ids, fact.encoded.places, fact.subject, [fact.last], noise_of(network, fact, draws))
        for fact in facts
    ]
    ours = time.perf_counter() - start
    layers = len(network.blocks())
    chosen = [(index * len(facts) // cells, index * layers // cells) for index in range(cells)]
    plain_cell(network, facts[0], 0, draws)
    start = time.perf_counter()
    plain = [plain_cell(network, facts[fact], layer, draws) for fact, layer in chosen]
    seconds = (time.perf_counter() - start) / cells
    report(
        "causal tracing: plain forwards / ours",
        ratio=seconds * len(facts) * layers / ours,
        our_seconds=ours,
        plain_seconds=seconds * len(facts) * layers,
        facts=float(len(facts)),
        layers=float(layers),
        draws=float(draws),
        largest_difference=max(
            abs(value - traced[fact].restored[layer]) for value, (fact, layer) in zip(plain, chosen, strict=True)
        ),
        precision=network.precision,
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
