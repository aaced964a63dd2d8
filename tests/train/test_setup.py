"""What set-up shares: blocks below the lowest trained weight see each row once."""

from __future__ import annotations

import torch

from expunge.combine.null_space import NullSpace
from expunge.data.example import Example
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward
from expunge.models.partial import can_enter
from expunge.retain.hidden_mse import HiddenMSE
from expunge.train.unlearn import make_stream


def test_lower_blocks_see_each_row_once(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    """A loss that measures norms, its reference states, a rule that measures covariances, and the first step."""
    tiny.freeze_but([f"{tiny.blocks()[1][0]}.mlp.down_proj.weight"])
    rows = examples["retain"]
    assert can_enter(tiny)
    seen: list[int] = []
    tiny.blocks()[0][1].mlp.register_forward_hook(  # type: ignore[union-attr]
        lambda _, inputs, __: seen.append(inputs[0].shape[0])
    )
    setup = Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/retain", 2)
    stream = make_stream("retain", HiddenMSE(HiddenMSE.Config()), setup)
    NullSpace(NullSpace.Config(rule="rank")).prepare(setup)
    assert stream.loss is not None
    with torch.no_grad():
        loss = stream.loss.loss(Forward.of(tiny, stream.rows, range(4)))
    assert loss < 1e-6
    assert sum(seen) == len(rows)
