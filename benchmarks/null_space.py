"""The cost of a null-space projection before the first step: `python benchmarks/null_space.py [AUTHORS]`.

Three feed-forward matrices of the embedded model, 1536 inputs each, and questions about AUTHORS invented authors; 24
give more than ten distinct tokens per input. The aim is under a minute. The rows stream through the blocks up to the
highest trained one; second moments are added up and decomposed in float64.
"""

from __future__ import annotations

import sys
import time

import torch
from _common import model, report

from expunge.combine._inputs import distinct_tokens, second_moments, trained_matrices
from expunge.combine._projection import ProjectionConfig, relax
from expunge.data.load import examples_from_rows
from expunge.data.sources.fictional import Fictional

BLOCKS = (5, 6, 7)


def main(authors: int) -> None:
    """Print the seconds of each part, by the clock and of the processor."""
    network = model()
    network.freeze_but([f"{network.blocks()[index][0]}.mlp.down_proj.weight" for index in BLOCKS])
    rows = examples_from_rows(Fictional(Fictional.Config(authors=authors)).rows("retain"), "retain")
    sequences = [network.encoder.example(row) for row in rows]
    matrices = trained_matrices(network)
    started, used = time.perf_counter(), time.process_time()
    moments = second_moments(network, matrices, sequences, skip_first=True, normalise=False)
    streamed = time.perf_counter()
    shares = [relax(moments[matrix.weight].means[0], ProjectionConfig()).share for matrix in matrices]
    report(
        "Null-space set-up of three matrices",
        seconds=time.perf_counter() - started,
        stream_seconds=streamed - started,
        processor_seconds=time.process_time() - used,
        threads=float(torch.get_num_threads()),
        tokens=float(sum(len(row.ids) for row in sequences)),
        distinct_tokens_per_input=distinct_tokens(sequences, skip_first=True) / matrices[0].num_inputs,
        free_share=sum(shares) / len(shares),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24)
