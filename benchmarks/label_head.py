"""The output matrix at label positions only, against logits at every position: `python benchmarks/label_head.py`.

One training step (forward, backward, AdamW) on 8 rows with prompts of 60 and answers of 20 tokens. The plain baseline
is what most training code does: the model's own forward over all positions, then a masked cross-entropy.
"""

from __future__ import annotations

import statistics
import sys

import torch
from _common import model, paired_seconds, ratio, report, rows

from expunge.data.batch import collate
from expunge.models.forward import Forward
from expunge.retain.nll import NLL

BATCH = 8
PROMPT, ANSWER = 60, 20


def main(repeats: int) -> None:
    """Print the speed-up of the step, and check that both compute the same loss."""
    network = model()
    batch = collate(rows(BATCH, PROMPT, ANSWER, network.base.config.vocab_size, 0), range(BATCH))
    labels = batch.input_ids.clone()
    labels[:, :PROMPT] = -100
    optimizer = torch.optim.AdamW(network.trainable(), lr=1e-9, fused=True)
    nll = NLL(NLL.Config(reduction="token_mean"))

    def ours() -> float:
        return _finish(nll.loss(Forward(network, batch)))

    def plain() -> float:
        with network.autocast():
            logits = network.base(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        return _finish(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()))

    def _finish(loss: torch.Tensor) -> float:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    difference = abs(ours() - plain())
    plain_seconds, our_seconds = paired_seconds(plain, ours, repeats)
    report(
        "step with full logits / step with logits at labels",
        ratio=ratio(plain_seconds, our_seconds),
        full_seconds=statistics.median(plain_seconds),
        label_seconds=statistics.median(our_seconds),
        loss_difference=f"{difference:.1e}",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
