"""Gradient ascent, worked by hand."""

import math

import pytest
from fake_view import view_of

from expunge.forget.gradient_ascent import GradientAscent
from expunge.numerics.token import Reduction


@pytest.mark.parametrize(("reduction", "expected"), [("seq_mean", -1.25), ("sum", -2.0), ("token_mean", -4 / 3)])
def test_mean_log_probability_of_rows_of_two_tokens_and_one(reduction: Reduction, expected: float) -> None:
    """Probabilities 1/2 1/4 | 1/2: log-probabilities -1 -2 | -1 in units of ln 2.

    seq_mean: (-3/2 - 1) / 2 = -5/4. sum: (-3 - 1) / 2 = -2. token_mean: -4/3.
    """
    loss = GradientAscent(GradientAscent.Config(reduction=reduction)).loss(view_of([[1 / 2, 1 / 4], [1 / 2]]))
    assert loss.item() == pytest.approx(expected * math.log(2), abs=1e-10)
