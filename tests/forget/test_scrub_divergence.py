"""SCRUB's forget loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from fake_view import view_of

from expunge.forget.divergence import Divergence

QUARTER = math.log(4 / 3) / 2
"""KL((1/2, 1/2) || (1/4, 3/4))."""


def test_the_negative_of_a_divergence_while_it_counts() -> None:
    """Divergences K 0 | K: the mean by row is 3/4 K. From the second epoch on there is neither value nor gradient."""
    view = view_of([[1 / 4, 1 / 2], [1 / 4]], [[1 / 2, 1 / 2], [1 / 2]])
    loss = Divergence(Divergence.Config(max_epochs=1))
    assert float(loss.loss(view)) == pytest.approx(-3 / 4 * QUARTER, abs=1e-6)
    assert float(loss.logs["divergence"]) == pytest.approx(3 / 4 * QUARTER, abs=1e-6)
    view.epoch = 1
    assert float(loss.loss(view)) == 0
    torch.testing.assert_close(Divergence(Divergence.Config()).loss(view), torch.tensor(-3 / 4 * QUARTER))
