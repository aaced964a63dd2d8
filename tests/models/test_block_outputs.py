"""What every block puts out, on ten architectures, against transformers' own hidden states."""

from __future__ import annotations

import pytest
import torch

from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import Pooling, block_outputs

ROWS = [
    Encoded((5, 9, 17, 3, 40), 2),
    Encoded((60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70), 3),
    Encoded((8, 100, 101), 1),
]


@torch.no_grad()
def plain(model: LanguageModel, row: Encoded, pooling: Pooling) -> torch.Tensor:
    """(D,) of the first block, one row at a time and without padding."""
    states = model.base(input_ids=torch.tensor([row.ids]), output_hidden_states=True).hidden_states[1][0]
    return states[-1] if pooling == "last" else states.mean(0)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_outputs_are_the_networks_own_hidden_states(random_model: LanguageModel, pooling: Pooling) -> None:
    """Of the first of two blocks: transformers' last hidden state is that after the final norm."""
    found = block_outputs(random_model, ROWS, pooling)
    assert found.shape == (3, 2, 32)
    for row, values in zip(ROWS, found, strict=True):
        torch.testing.assert_close(values[0], plain(random_model, row, pooling), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_batches_and_padding_change_nothing(random_model: LanguageModel, pooling: Pooling) -> None:
    together = block_outputs(random_model, ROWS, pooling)
    alone = block_outputs(random_model, ROWS, pooling, token_budget=1)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in random_model.base.modules())
