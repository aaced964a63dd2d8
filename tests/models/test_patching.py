"""Another model's states in a row's run, and read by the head: against plain full forwards."""

from __future__ import annotations

import pytest
import torch
from random_models import ARCHITECTURES, random_network
from torch import Tensor

from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import label_states, read_states
from expunge.models.forward import score_rows
from expunge.models.hooks import hidden_of
from expunge.models.patching import patch

IDS = (1, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
ROWS = [Encoded(IDS, 8, targets=(8, 10)), Encoded(IDS[::-1], 5), Encoded((3, 1, 4), 1)]


@torch.no_grad()
def naively(model: LanguageModel, row: Encoded, states: Tensor, layer: int) -> float:
    """One whole forward with a hook."""
    places = torch.tensor(row.places)

    def hook(_: object, __: object, output: object) -> None:
        hidden_of(output)[0, places - 1] = states[layer]

    handle = model.blocks()[layer][1].register_forward_hook(hook)
    logp = model.base(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
    handle.remove()
    return float(logp[places - 1, torch.tensor(row.labels)].mean())


@pytest.fixture
def other(random_model: LanguageModel, request: pytest.FixtureRequest) -> list[Tensor]:
    """States of the same network with other weights, for each row."""
    name = request.node.callspec.params["random_model"]
    network = random_network(name, **ARCHITECTURES[name])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    kept = random_model.network
    random_model.network = network
    found = label_states(random_model, ROWS)
    random_model.network = kept
    return found


@pytest.mark.parametrize("token_budget", [1, 2048])
def test_every_architecture_agrees_with_whole_forwards(
    random_model: LanguageModel, other: list[Tensor], token_budget: int
) -> None:
    own = label_states(random_model, ROWS)
    for row, theirs, mine in zip(ROWS, other, own, strict=True):
        found = patch(random_model, row, [theirs, mine], token_budget)
        wanted = [naively(random_model, row, theirs, layer) for layer in range(2)]
        assert found.patched[0].tolist() == pytest.approx(wanted, abs=1e-4)
        assert found.patched[1].tolist() == pytest.approx([found.plain] * 2, abs=1e-4)
        assert max(abs(value - found.plain) for value in wanted) > 0.01


def test_states_are_those_of_a_row_alone(random_model: LanguageModel) -> None:
    together = label_states(random_model, ROWS)
    assert [states.shape[:2] for states in together] == [(2, 2), (2, 7), (2, 2)]
    for row, states in zip(ROWS, together, strict=True):
        torch.testing.assert_close(states, label_states(random_model, [row])[0], rtol=1e-4, atol=1e-5)


def test_the_last_block_is_read_as_the_model_reads_it(random_model: LanguageModel) -> None:
    for row, states, logp in zip(ROWS, label_states(random_model, ROWS), score_rows(random_model, ROWS), strict=True):
        found = read_states(random_model, states[-1], torch.tensor(row.labels), chunk=3)
        torch.testing.assert_close(found, logp, rtol=1e-4, atol=1e-4)


def test_a_deep_model_joins_block_by_block(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    row = tiny.encoder.keywords(examples["forget"][0])
    other = label_states(tiny, [row])[0] + torch.randn(1, generator=torch.Generator().manual_seed(0))
    found = patch(tiny, row, [other])
    wanted = [naively(tiny, row, other, layer) for layer in range(3)]
    assert found.patched[0].tolist() == pytest.approx(wanted, abs=1e-2)
    assert patch(tiny, row, [other], token_budget=1).patched[0].tolist() == pytest.approx(wanted, abs=1e-2)
