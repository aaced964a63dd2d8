"""DPO, worked by hand, at the reference, and against gradient ascent and NPO."""

import math

import pytest
import torch
from fake_view import FakeView, view_of

from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.example import Example
from expunge.forget.dpo import DPO
from expunge.losses.base import Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, Needs, row_set, score_rows

ANSWERS, REFUSALS = [[0, 3, 1], [4, 4]], [[2], [5, 6, 1]]


@pytest.fixture
def setup(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> Setup:
    rows = examples["forget"][:4]
    return Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/forget", 2)


def dpo(setup: Setup, beta: float) -> DPO:
    filler = DPO(DPO.Config(beta=beta))
    filler.prepare(setup)
    return filler


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 2 * math.log(1.125)), (0.5, 4 * math.log(1 + math.sqrt(1 / 8)))])
def test_value_of_one_pair(setup: Setup, beta: float, expected: float) -> None:
    """Answer 1/2 * 1/4 = 1/8 now, 1/2 at the start: ratio 1/4. Refusal 1/2 now, 1/4 at the start: ratio 2.

    Margin ln(2 / (1/4)) = ln 8; 2/beta ln(1 + 8^-beta): beta 1 gives 2 ln(9/8), beta 1/2 gives 4 ln(1 + 8^-1/2).
    """
    view = view_of([[1 / 2, 1 / 4]], [[2 / 3, 3 / 4]])
    view.others = view_of([[1 / 2]], [[1 / 4]])
    view.epoch = 1
    assert dpo(setup, beta).loss(view).item() == pytest.approx(expected, abs=1e-10)
    assert view.asked == (4,)


def random_logits(num_labels: int, seed: int) -> torch.Tensor:
    return torch.randn(num_labels, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def summed(logits: torch.Tensor, labels: list[list[int]]) -> torch.Tensor:
    """(B,) log-probability of each answer."""
    logp = torch.log_softmax(logits, -1)
    flat = torch.tensor([label for answer in labels for label in answer])
    return torch.stack([part.sum() for part in logp[range(len(flat)), flat].split([len(answer) for answer in labels])])


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_at_the_reference_answers_fall_and_refusals_rise_alike(setup: Setup, beta: float) -> None:
    """Value 2 ln 2 / beta (13.8629 at 0.1) as for NPO; gradient that of the mean of S(answer) - S(refusal)."""
    answer, refusal = random_logits(5, 0).requires_grad_(), random_logits(4, 1).requires_grad_()
    view = FakeView(answer, ANSWERS, answer.detach())
    view.others = FakeView(refusal, REFUSALS, refusal.detach())
    loss = dpo(setup, beta).loss(view)
    assert loss.item() == pytest.approx(2 * math.log(2) / beta, abs=1e-10)
    wanted = torch.autograd.grad((summed(answer, ANSWERS) - summed(refusal, REFUSALS)).mean(), (answer, refusal))
    for found, expected in zip(torch.autograd.grad(loss, (answer, refusal)), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


def test_gradient_is_the_difference_weighted_by_how_far_the_pair_is_settled(setup: Setup) -> None:
    """Weight of a pair: 2 sigmoid(-beta margin)."""
    beta = 0.7
    answer, refusal = random_logits(5, 0).requires_grad_(), random_logits(4, 1).requires_grad_()
    old_answer, old_refusal = random_logits(5, 2), random_logits(4, 3)
    view = FakeView(answer, ANSWERS, old_answer)
    view.others = FakeView(refusal, REFUSALS, old_refusal)
    difference = summed(answer, ANSWERS) - summed(refusal, REFUSALS)
    margin = (summed(old_answer, ANSWERS) - summed(old_refusal, REFUSALS)) - difference.detach()
    weight = 2 / (1 + (beta * margin).exp())
    wanted = torch.autograd.grad((weight * difference).mean(), (answer, refusal))
    found = torch.autograd.grad(dpo(setup, beta).loss(view), (answer, refusal))
    assert weight.std() > 0.1
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_reference_is_the_model_that_prepared_it_in_every_epoch(setup: Setup) -> None:
    """On the real view: 2 ln 2 / beta before any step, in both epochs; after one, the formula by separate scoring."""
    model = setup.model
    filler = dpo(setup, 0.1)
    rows = row_set(model, setup.sequences, Needs(reference_logp=True))
    batch = collate([setup.sequences[2], setup.sequences[0]], [2, 0])
    for epoch in range(2):
        start = filler.loss(Forward(model, batch, rows, epoch)).item()
        assert start == pytest.approx(20 * math.log(2), abs=1e-3)

    before = [logp.sum() for logp in score_rows(model, [*filler._refused.sequences, *setup.sequences])]
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.mul_(1.02)
    after = [logp.sum() for logp in score_rows(model, [*filler._refused.sequences, *setup.sequences])]
    gain = torch.stack(after) - torch.stack(before)
    margin = torch.stack([gain[4 + 2] - gain[8 + 2], gain[4 + 0] - gain[8 + 0]])
    wanted = 20 * torch.log1p((-0.1 * margin).exp()).mean()
    found = filler.loss(Forward(model, batch, rows, 1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
    assert abs(found.item() - 20 * math.log(2)) > 0.05


def test_documents_are_named(setup: Setup) -> None:
    with pytest.raises(UserError, match="'report#2'"):
        DPO(DPO.Config()).check([Example("report#2", text="Some text.")])
