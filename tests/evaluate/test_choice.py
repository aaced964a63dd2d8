"""Multiple choice: accuracy, and how far it is from guessing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom
from worked import metric

from expunge.data.example import Example
from expunge.evaluate.base import Absent, Item
from expunge.evaluate.score import item_values, score


def choice(answer: str, *logp: float, options: tuple[str, ...] = ("a", "b", "c", "d")) -> Item:
    return Item(Example("r", "Q", answer, options=options), choice_logp=logp)


def test_accuracy() -> None:
    """The highest of four; of equals the first; no number in between."""
    found = metric("choice_accuracy")
    assert found.value(choice("c", -3.0, -2.0, -1.0, -4.0), "forget") == 1
    assert found.value(choice("b", -3.0, -2.0, -1.0, -4.0), "forget") == 0
    assert found.value(choice("a", -1.0, -1.0, -2.0, -2.0), "forget") == 1
    with pytest.raises(Absent, match="without options"):
        found.value(choice("a"), "forget")
    with pytest.raises(Absent, match="not a number"):
        found.value(choice("a", math.nan, -1.0, -2.0, -3.0), "forget")


def test_chance_is_one_of_the_options() -> None:
    """Four options everywhere: 1/4. Two and four: none is defined."""
    four = [choice("a", 0.0, -1.0, -1.0, -1.0)] * 3
    two = [choice("b", 0.0, -1.0, options=("a", "b"))]
    metrics = {"choice_accuracy": metric("choice_accuracy")}
    found = score(item_values({"forget": four}, metrics), metrics, 0)["forget"]["choice_accuracy"]
    assert (found.value, found.chance, found.n) == (1.0, 0.25, 3)
    found = score(item_values({"forget": four, "retain": two}, metrics), metrics, 0)["retain"]["choice_accuracy"]
    assert (found.value, found.chance) == (0.0, None)


def test_standard_errors_from_chance() -> None:
    """40 hits of 100 four-way rows: (40 - 25) / sqrt(100 * 3/16) = 15 / 4.3301 = 3.4641, as by the binomial's moments.

    Of one four-way hit and one two-way miss: (1 - 3/4) / sqrt(3/16 + 1/4) = 0.25 / 0.66144.
    """
    found = metric("choice_above_chance")
    hit, miss = choice("a", 0.0, -1.0, -1.0, -1.0), choice("b", 0.0, -1.0, -1.0, -1.0)
    values = np.array([found.value(item, "forget") for item in [hit] * 40 + [miss] * 60])
    guessing = binom(100, 0.25)
    assert found.aggregate(values) == pytest.approx((40 - guessing.mean()) / guessing.std())
    assert found.aggregate(values) == pytest.approx(3.4641, abs=1e-4)
    two_way_miss = choice("b", 0.0, -1.0, options=("a", "b"))
    mixed = np.array([found.value(item, "forget") for item in (hit, two_way_miss)])
    assert found.aggregate(mixed) == pytest.approx(0.25 / math.sqrt(3 / 16 + 1 / 4))
    assert found.aggregate(np.stack([values, values])).shape == (2,)
