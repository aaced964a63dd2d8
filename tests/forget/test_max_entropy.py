"""ME, worked by hand; and which positions count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fake_view import FakeView, view_of

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.forget.max_entropy import MaxEntropy
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward


def max_entropy(**options: Any) -> MaxEntropy:
    return MaxEntropy(MaxEntropy.Config(**options))


@pytest.mark.parametrize(
    ("direction", "row", "expected"),
    [
        ("u_to_p", [1 / 4], math.log(4 / 3) / 2),
        ("p_to_u", [1 / 4], 0.75 * math.log(3) - math.log(2)),
        ("u_to_p", [1 / 4, 1 / 2], math.log(4 / 3) / 4),
    ],
)
def test_value_over_two_tokens(direction: str, row: list[float], expected: float) -> None:
    """p = 1/4 3/4. KL(u||p) = -(ln 1/4 + ln 3/4)/2 - ln 2 = (ln 4 - ln 3)/2 + (ln 4)/2 - ln 2 = ln(4/3)/2.

    KL(p||u) = ln 2 - H with H = (ln 4)/4 + 3/4 (ln 4 - ln 3): 3/4 ln 3 - ln 2. The position at 1/2 adds 0.
    """
    loss = max_entropy(direction=direction, scope="answer")
    assert loss.loss(view_of([row])).item() == pytest.approx(expected, abs=1e-10)
    assert loss.logs["divergence"] == pytest.approx(expected, abs=1e-10)


def test_logged_entropy_is_the_mean_over_positions() -> None:
    """H(1/2) = ln 2 and H(1/4) = ln 4 - 3/4 ln 3, whatever the direction."""
    expected = (math.log(2) + math.log(4) - 0.75 * math.log(3)) / 2
    for direction in ("u_to_p", "p_to_u"):
        loss = max_entropy(direction=direction, scope="answer")
        loss.loss(view_of([[1 / 2], [1 / 4]]))
        assert loss.logs["entropy"] == pytest.approx(expected, abs=1e-10)


def test_only_the_official_direction_moves_a_sure_model() -> None:
    """50 tokens, one logit at 12: its gradient is 0.980 for KL(u||p) and 0.0036 for KL(p||u)."""
    found = {}
    for direction in ("u_to_p", "p_to_u"):
        logits = torch.zeros(1, 50, dtype=torch.float64)
        logits[0, 0] = 12
        logits.requires_grad_()
        loss = max_entropy(direction=direction, scope="answer").loss(FakeView(logits, [[0]]))
        found[direction] = torch.autograd.grad(loss, logits)[0][0, 0].item()
    assert found["u_to_p"] == pytest.approx(0.9797, abs=1e-4)
    assert found["p_to_u"] == pytest.approx(0.0036, abs=1e-4)


@pytest.fixture
def rows(examples: dict[str, tuple[Example, ...]]) -> tuple[Example, ...]:
    return examples["forget"][:3]


def setup_of(model: LanguageModel, rows: tuple[Example, ...]) -> Setup:
    return Setup(model, rows, [model.encoder.example(row) for row in rows], "0/forget", 1)


@torch.no_grad()
def value(model: LanguageModel, rows: tuple[Example, ...], **options: Any) -> float:
    setup = setup_of(model, rows)
    loss = max_entropy(**options)
    loss.prepare(setup)
    return loss.loss(Forward(model, collate(setup.sequences, range(len(rows))))).item()


@torch.no_grad()
def divergences(model: LanguageModel, ids: list[int], num_real: int) -> torch.Tensor:
    """KL(u||p) at every position but the last, from the network's own logits; nothing looks beyond `num_real`."""
    mask = torch.tensor([[1] * num_real + [0] * (len(ids) - num_real)])
    logits = model.base(input_ids=torch.tensor([ids]), attention_mask=mask).logits[0, :-1].double()
    return -torch.log_softmax(logits, -1).mean(-1) - math.log(logits.shape[-1])


def test_scopes_are_means_over_their_positions(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """A row of n tokens with p in the prompt: n - 1 positions, the last n - p of them, or 39 with padding to 40."""
    tiny.network.eval()
    whole, answer, padded = [], [], []
    for row in rows:
        encoded = tiny.encoder.example(row)
        ids, size = [*encoded.ids], len(encoded.ids)
        assert size < 40
        whole.append(divergences(tiny, ids, size).mean())
        answer.append(divergences(tiny, ids, size)[encoded.num_prompt - 1 :].mean())
        filled = divergences(tiny, [*ids, *[tiny.encoder.end_id] * (40 - size)], size)
        assert len(filled) == 39
        padded.append(filled.mean())
    found = [
        value(tiny, rows, scope="question+answer"),
        value(tiny, rows, scope="answer"),
        value(tiny, rows, scope="padded", padded_length=40),
    ]
    expected = [float(torch.stack(each).mean()) for each in (whole, answer, padded)]
    assert len({round(number, 3) for number in expected}) == 3
    assert found == pytest.approx(expected, rel=1e-5)


def test_padding_is_a_length_and_longer_rows_are_cut(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """9 tokens of each row are left: 8 positions, all of them text."""
    tiny.network.eval()
    expected = torch.stack([divergences(tiny, [*tiny.encoder.example(row).ids][:9], 9).mean() for row in rows]).mean()
    assert value(tiny, rows, scope="padded", padded_length=9) == pytest.approx(float(expected), rel=1e-5)
    limit = tiny.encoder.max_length
    with pytest.raises(UserError, match=rf"forget\.padded_length: {limit + 1} tokens, the limit is {limit}"):
        value(tiny, rows, scope="padded", padded_length=limit + 1)
