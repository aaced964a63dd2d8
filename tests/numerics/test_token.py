"""Reductions, worked by hand."""

import math

import pytest
import torch

from expunge.numerics.token import Reduction, prediction, reduce_tokens, sequence_length, sequence_sum, token_logp

VALUES = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
ROWS = torch.tensor([0, 0, 0, 1])


@pytest.mark.parametrize(("reduction", "expected"), [("seq_mean", 4.0), ("sum", 6.0), ("token_mean", 3.0)])
def test_reductions_of_rows_of_three_tokens_and_one(reduction: Reduction, expected: float) -> None:
    """Values 1 2 3 | 6.

    seq_mean: (1 + 2 + 3) / 3 = 2 and 6, mean 4. sum: 6 and 6, mean 6. token_mean: 12 / 4 = 3.
    """
    assert reduce_tokens(VALUES, ROWS, 2, reduction).item() == expected


def test_only_token_mean_depends_on_how_rows_share_a_batch() -> None:
    """Row by row the means are 2 and 6, so an accumulated token_mean is 4, but 3 in one batch; seq_mean stays 4."""
    apart = [(VALUES[:3], ROWS[:3]), (VALUES[3:], ROWS[:1])]
    for reduction, expected in (("seq_mean", 4.0), ("sum", 6.0), ("token_mean", 4.0)):
        accumulated = sum(reduce_tokens(values, rows, 1, reduction) for values, rows in apart) / 2
        assert float(accumulated) == expected


def test_a_row_without_labels_still_counts_as_a_row_of_the_sum() -> None:
    assert sequence_sum(VALUES, ROWS, 3).tolist() == [6.0, 6.0, 0.0]
    assert sequence_length(ROWS, 3).tolist() == [3, 1, 0]


def test_token_logp_of_two_tokens() -> None:
    """Logits (ln 3, 0) give probabilities 3/4 and 1/4; half precision is raised to float32 first."""
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]])
    logp = token_logp(logits, torch.tensor([0, 1]))
    assert logp.tolist() == pytest.approx([math.log(3 / 4), math.log(1 / 4)], abs=1e-7)
    assert token_logp(logits.bfloat16(), torch.tensor([0, 1])).dtype == torch.float32


def test_prediction_of_two_tokens() -> None:
    """Logits (ln 3, 0), p = 3/4 and 1/4: mean log-probability ln 3/4 * 3/4 + ln 1/4 / 4, variance 3/16 ln(3)^2."""
    found = prediction(torch.tensor([[math.log(3), 0.0]]))
    mean = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    wanted = [mean, 3 / 16 * math.log(3) ** 2, math.log(3), math.log(4), -mean, math.log(0.75)]
    assert [float(one) for one in (*found, found.entropy, found.top_logp)] == pytest.approx(wanted, abs=1e-6)
    assert prediction(torch.zeros(1, 2, dtype=torch.float64)).mean.dtype == torch.float64
