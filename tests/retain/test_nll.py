"""The retain NLL, worked by hand."""

import math

import pytest
from fake_view import view_of

from expunge.numerics.token import Reduction
from expunge.retain.nll import NLL


@pytest.mark.parametrize(("reduction", "expected"), [("seq_mean", 1.25), ("sum", 2.0), ("token_mean", 4 / 3)])
def test_rows_of_two_tokens_and_one(reduction: Reduction, expected: float) -> None:
    """Probabilities 1/2 1/4 | 1/2: losses 1 2 | 1 in units of ln 2.

    seq_mean: (3/2 + 1) / 2 = 5/4. sum: (3 + 1) / 2 = 2. token_mean: 4/3.
    """
    loss = NLL(NLL.Config(reduction=reduction)).loss(view_of([[1 / 2, 1 / 4], [1 / 2]]))
    assert loss.item() == pytest.approx(expected * math.log(2), abs=1e-10)
