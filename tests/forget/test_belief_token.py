"""BS-T: its gradient against the formula, gradient ascent and a dense soft target; float64 throughout."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from fake_view import FakeView
from torch import Tensor

from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.forget.belief_token import BeliefToken
from expunge.forget.gradient_ascent import GradientAscent
from expunge.losses.base import Loss, Setup
from expunge.models.base import LanguageModel
from expunge.numerics.token import Reduction, reduce_tokens

LABELS = [[0, 3, 1], [4, 4]]
SIZE = 7
EXACT = {"rtol": 0, "atol": 1e-10}


def random_logits(seed: int = 0) -> Tensor:
    return 2 * torch.randn(5, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def belief_token(**options: Any) -> BeliefToken:
    return BeliefToken(BeliefToken.Config(**{"k": 3, **options}))


def ascent(reduction: Reduction = "seq_mean") -> GradientAscent:
    return GradientAscent(GradientAscent.Config(reduction=reduction))


def value_and_gradient(loss: Loss, logits: Tensor, labels: list[list[int]] = LABELS) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss.loss(FakeView(logits, labels))
    return value.detach(), torch.autograd.grad(value, logits)[0]


def beliefs(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities, the beliefs q as a dense (N, V) matrix, and their mass m: the formulas, by sorting."""
    probabilities = torch.softmax(logits, -1)
    smallest = probabilities.sort(-1, descending=True).values[:, k - 1 : k]
    kept = probabilities.where(probabilities >= smallest, 0)
    mass = kept.sum(-1, keepdim=True)
    return probabilities, kept / mass, mass


def one_hot() -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([label for row in LABELS for label in row]), SIZE).double()


@pytest.mark.parametrize("reduction", ["seq_mean", "sum", "token_mean"])
@pytest.mark.parametrize("k", [1, 3, SIZE])
def test_without_weight_it_is_gradient_ascent(k: int, reduction: Reduction) -> None:
    found = value_and_gradient(belief_token(k=k, weight=0.0, reduction=reduction), random_logits())
    torch.testing.assert_close(found, value_and_gradient(ascent(reduction), random_logits()), **EXACT)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_gathered_form_is_the_dense_soft_target(temperature: float) -> None:
    """`<t, log pi>` with t = weight q + (1 - weight) e_y over the whole vocabulary, t without gradient."""
    logits = random_logits().requires_grad_()
    _, kept, _ = beliefs(logits.detach(), 3)
    sharpened = kept ** (1 / temperature) / (kept ** (1 / temperature)).sum(-1, keepdim=True)
    target = 0.3 * sharpened + 0.7 * one_hot()
    dense = reduce_tokens(
        (target * torch.log_softmax(logits, -1)).sum(-1), torch.tensor([0, 0, 0, 1, 1]), 2, "seq_mean"
    )
    expected = (dense.detach(), torch.autograd.grad(dense, logits)[0])
    loss = belief_token(weight=0.3, temperature=temperature)
    torch.testing.assert_close(value_and_gradient(loss, logits.detach()), expected, **EXACT)


def test_gradient_is_target_minus_policy_and_sums_to_zero() -> None:
    """Reduced by sum over one row, each position's gradient is t - pi."""
    labels = [[0, 3, 1, 4, 4]]
    _, gradient = value_and_gradient(belief_token(weight=0.3, reduction="sum"), random_logits(), labels)
    probabilities, kept, _ = beliefs(random_logits(), 3)
    torch.testing.assert_close(gradient, 0.3 * kept + 0.7 * one_hot() - probabilities, **EXACT)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(5, dtype=torch.float64), **EXACT)


def test_gradient_is_scaled_ascent_and_a_pull_of_the_beliefs() -> None:
    """`(1 - weight) g_GA + weight (q - pi)`, and `|q - pi|_1 = 2 (1 - m)`: nothing is left of it where m is 1."""
    labels = [[0, 3, 1, 4, 4]]
    _, found = value_and_gradient(belief_token(weight=0.3, reduction="sum"), random_logits(), labels)
    _, plain = value_and_gradient(ascent("sum"), random_logits(), labels)
    probabilities, kept, mass = beliefs(random_logits(), 3)
    torch.testing.assert_close(found, 0.7 * plain + 0.3 * (kept - probabilities), **EXACT)
    torch.testing.assert_close((kept - probabilities).abs().sum(-1, keepdim=True), 2 * (1 - mass), **EXACT)


def test_ascent_differs_by_the_beliefs_only() -> None:
    """Beside the label a token gets `weight q[v]` more than under ascent; the label `weight (1 - q[y])` less."""
    labels = [[0, 3, 1, 4, 4]]
    _, found = value_and_gradient(belief_token(weight=0.3, reduction="sum"), random_logits(), labels)
    _, plain = value_and_gradient(ascent("sum"), random_logits(), labels)
    _, kept, _ = beliefs(random_logits(), 3)
    is_label = one_hot().bool()
    torch.testing.assert_close((found - plain)[~is_label], 0.3 * kept[~is_label], **EXACT)
    torch.testing.assert_close((found - plain)[is_label], -0.3 * (1 - kept[is_label]), **EXACT)


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_over_the_whole_vocabulary_it_is_scaled_ascent(weight: float) -> None:
    """k = V: `(1 - weight) g_GA`, zero at weight 1; with a gradient through the beliefs it would be `p (log p + H)`."""
    _, found = value_and_gradient(belief_token(k=SIZE, weight=weight), random_logits())
    _, plain = value_and_gradient(ascent(), random_logits())
    torch.testing.assert_close(found, (1 - weight) * plain, **EXACT)


@pytest.mark.parametrize(("weight", "sign"), [(0.4, -1), (0.6, 1)])
def test_a_belief_is_pushed_down_only_if_weight_exceeds_its_mass(weight: float, sign: int) -> None:
    """Probabilities 1/8 (the label) 3/10 1/5 | 3/16 3/16, k 2: m = 1/2, gradient `p (weight / m - 1)` on the beliefs.

    At 0.4 that is -0.06 and -0.04, so that descent lifts them; at 0.6 +0.06 and +0.04.
    """
    logits = torch.tensor([[1 / 8, 3 / 10, 1 / 5, 3 / 16, 3 / 16]], dtype=torch.float64).log()
    loss = belief_token(k=2, weight=weight)
    _, gradient = value_and_gradient(loss, logits, [[0]])
    assert gradient[0, 1:3].tolist() == pytest.approx([sign * 0.06, sign * 0.04], abs=1e-10)
    assert loss.logs["belief_mass"] == pytest.approx(1 / 2, abs=1e-10)


def test_the_likeliest_token_alone_is_ascent_on_it() -> None:
    """k 1, weight 1: labels are the arg-max; where the label is the arg-max, any weight is ascent."""
    logits = random_logits()
    best = logits.argmax(-1).tolist()
    own = [best[:3], best[3:]]
    assert own != LABELS
    wanted = value_and_gradient(ascent(), logits, own)
    torch.testing.assert_close(value_and_gradient(belief_token(k=1, weight=1.0), logits), wanted, **EXACT)
    torch.testing.assert_close(value_and_gradient(belief_token(k=1, weight=0.4), logits, own), wanted, **EXACT)


def expected_gradient(loss: Loss, first: Tensor, then: Tensor, temperature: float) -> Tensor:
    """Mean gradient on the first position's logits over all answers of two tokens, weighted as they are sampled."""
    total = torch.zeros_like(first)
    for one, two in itertools.product(range(4), repeat=2):
        chance = torch.softmax(first / temperature, -1)[one] * torch.softmax(then[one] / temperature, -1)[two]
        _, gradient = value_and_gradient(loss, torch.stack([first, then[one]]), [[one, two]])
        total += chance * gradient[0]
    return total


def test_ascent_on_own_samples_is_zero_on_average_and_beliefs_give_it_direction() -> None:
    """The score function has mean zero at temperature 1 and not at 0.7; under BS-T `weight (q - pi)` remains."""
    generator = torch.Generator().manual_seed(3)
    first, then = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4,), (4, 4)))
    zero = torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(expected_gradient(ascent("sum"), first, then, 1.0), zero, **EXACT)
    assert expected_gradient(ascent("sum"), first, then, 0.7).abs().max() > 1e-2
    found = expected_gradient(belief_token(k=2, weight=0.3, reduction="sum"), first, then, 1.0)
    probabilities, kept, _ = beliefs(first[None], 2)
    torch.testing.assert_close(found, 0.3 * (kept - probabilities)[0], **EXACT)


def test_more_beliefs_than_tokens_are_refused(tiny: LanguageModel) -> None:
    row = Example("x", "Who?", "Nobody.")
    setup = Setup(tiny, [row], [tiny.encoder.example(row)], "0/forget", 1)
    size = tiny.base.config.vocab_size
    belief_token(k=size).prepare(setup)
    with pytest.raises(UserError, match=rf"forget\.k: {size + 1} beliefs, .* {size} tokens"):
        belief_token(k=size + 1).prepare(setup)


def test_weights_of_wga_and_npo() -> None:
    """`p^beta` for each token; `2 sigmoid(beta (S - S_original))` for each row; neither carries a gradient."""
    logits, original = random_logits(1), random_logits(2)
    rows = torch.tensor([0, 0, 0, 1, 1])
    labels = torch.tensor([label for row in LABELS for label in row])[:, None]
    now, then = (torch.log_softmax(one, -1).gather(1, labels)[:, 0] for one in (logits, original))
    plain, weighted = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    ratio = torch.stack([(now - then)[rows == row].sum() for row in (0, 1)])
    for weighting, weights in (("wga", (0.5 * now).exp()), ("npo", (2 * torch.sigmoid(0.5 * ratio))[rows])):
        loss = belief_token(weighting=weighting, beta=0.5, reduction="sum")
        assert loss.needs.reference_logp == (weighting == "npo")
        found = loss.loss(FakeView(weighted, LABELS, original))
        single = [
            belief_token(reduction="sum").loss(FakeView(plain[place : place + 1], [[int(labels[place])]]))
            for place in range(5)
        ]
        expected = (weights * torch.stack(single)).sum() / 2
        torch.testing.assert_close(found, expected, **EXACT)
        pairs = [torch.autograd.grad(value, one)[0] for value, one in ((found, weighted), (expected, plain))]
        torch.testing.assert_close(*pairs, **EXACT)
