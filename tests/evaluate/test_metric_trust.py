"""Faithfulness and robustness of metrics: orientation, each formula by hand, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from expunge.core.metric_trust import PoolModel
from expunge.core.records import Better, Score
from expunge.evaluate.metric_trust import (
    TrustConfig,
    best_threshold,
    faithfulness,
    knowledge,
    metric_trust,
    quantize_robustness,
    relearn_robustness,
)


def known(value: float | None, better: Better = "lower") -> dict[str, Score]:
    return {"m": Score(value=value, n=8, better=better, reason=None if value is not None else "no rows")}


def pool(*values: tuple[bool | None, float | None]) -> list[PoolModel]:
    return [PoolModel(path=f"{place}", knows=knows, before=known(value)) for place, (knows, value) in enumerate(values)]


def unlearned(before: float, quantized: float | None, relearned: float | None, kept: bool = True) -> PoolModel:
    parts = {"quantized": quantized, "relearned": relearned}
    after = {name: known(value) for name, value in parts.items() if value is not None}
    return PoolModel(path="u", kept=kept, before=known(before), **after)


KNOWING = pool((True, 0.9), (True, 0.8), (True, 0.7), (True, 0.6), (False, 0.1), (False, 0.2), (False, 0.3), (False, 0))
RETRAINED = PoolModel(path="r", before=known(0.1), relearned=known(0.3))


@pytest.mark.parametrize(
    ("metric", "value", "better", "turned"),
    [
        ("probability", 0.7, "lower", 0.7),
        ("uds", 0.7, "higher", 0.3),
        ("mia_loss_auc", 0.7, "neither", 0.7),
        ("holdout/mia_loss_auc", 0.7, "neither", 0.7),
        ("krd", 0.7, "neither", 0.3),
        ("privleak", -100.0, "neither", 101.0),
        ("unheard_of", 0.7, "neither", None),
        ("probability", None, "lower", None),
    ],
)
def test_higher_always_means_more_knowledge(
    metric: str, value: float | None, better: Better, turned: float | None
) -> None:
    """A depth of 0.7 is 0.3 of knowledge; an attack recognises members that are known; privleak falls below 0."""
    found = knowledge(Score(value=value, better=better), metric, TrustConfig())
    assert found == (None if turned is None else pytest.approx(turned))
    assert knowledge(None, metric, TrustConfig()) is None


@pytest.mark.parametrize(
    ("before", "after", "plain", "symmetric"),
    [
        (0.2, 0.4, 0.5, 1 - 0.2 / 0.6),
        (0.4, 0.2, 1.0, 1 - 0.2 / 0.6),
        (0.3, 0.3, 1.0, 1.0),
        (0.0, 0.0, 1.0, 1.0),
        (0.0, 0.5, 0.0, 0.0),
    ],
)
def test_quantization(before: float, after: float, plain: float, symmetric: float) -> None:
    """Knowledge that doubles leaves one half; knowledge that falls is punished by the symmetric form only."""
    assert quantize_robustness(before, after) == pytest.approx(plain)
    assert quantize_robustness(before, after, symmetric=True) == pytest.approx(symmetric)


@pytest.mark.parametrize(
    ("gains", "plain", "symmetric"),
    [
        ((0.4, 0.2), 0.5, 1 - 0.2 / 0.6),
        ((0.1, 0.2), 1.0, 1 - 0.1 / 0.3),
        ((-0.1, 0.2), 1.0, 0.0),
        ((0.4, 0.0), 0.0, 0.0),
        ((0.4, -0.1), 0.0, 0.0),
        ((0.0, 0.0), 1.0, 1.0),
    ],
)
def test_relearning(gains: tuple[float, float], plain: float, symmetric: float) -> None:
    """Twice the retrained model's gain leaves one half; no more than its gain leaves 1."""
    pairs = (0.2, 0.2 + gains[0]), (0.3, 0.3 + gains[1])
    assert relearn_robustness(*pairs) == pytest.approx(plain)
    assert relearn_robustness(*pairs, symmetric=True) == pytest.approx(symmetric)


def test_faithfulness_by_hand() -> None:
    """Of 3 * 2 pairs 0.5 beats 0.4 but not 0.6, the rest is right: 5 / 6. A tie is half a pair."""
    assert faithfulness([0.5, 0.8, 0.9], [0.4, 0.6])[0] == pytest.approx(5 / 6)
    assert faithfulness([0.5], [0.5])[0] == pytest.approx(0.5)


def test_the_interval_of_a_perfect_separation_has_width() -> None:
    """Newcombe's equation for the lower end; from 4 and 4 models on it lies above 0.5."""
    for size in (3, 4, 30):
        area, low, high = faithfulness([1.0 + x for x in range(size)], [-1.0 - x for x in range(size)])
        assert (area, high) == (1.0, 1.0)
        k = size - 1
        spread = low * (1 - low) * (1 + k * (1 - low) / (2 - low) + k * low / (1 + low)) / size**2
        assert (1 - low) ** 2 == pytest.approx(1.959964**2 * spread, rel=1e-4)
    assert faithfulness([1, 2, 3], [-1, -2, -3])[1] == pytest.approx(0.5, abs=0.01)
    reverse = faithfulness([-1, -2, -3, -4], [1, 2, 3, 4])
    forward = faithfulness([1, 2, 3, 4], [-1, -2, -3, -4])
    assert reverse == pytest.approx((1 - forward[0], 1 - forward[2], 1 - forward[1]))


def test_the_interval_holds_what_it_should() -> None:
    """Coverage over 400 pools of 10 and 10 normal values, true area 0.76: 95% within a few points."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        _, low, high = faithfulness(list(generator.normal(1, 1, 10)), list(generator.normal(0, 1, 10)))
        hits += low <= 0.7602 <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_the_threshold_is_that_of_the_roc_curve() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        knowing, others = generator.normal(1, 1, 9), generator.normal(0, 1, 7)
        threshold = best_threshold(list(knowing), list(others))
        wrong, right, _ = roc_curve([1] * 9 + [0] * 7, [*knowing, *others])
        assert (knowing >= threshold).mean() - (others >= threshold).mean() == pytest.approx((right - wrong).max())
    assert best_threshold([0.8, 0.6], [0.2, 0.1]) == pytest.approx(0.4)
    assert best_threshold([0.5], [0.5]) == 0.5


def test_a_metric_that_deserves_trust() -> None:
    """Threshold 0.45. Q: 0.2/0.25 and 0.1/0.1, mean 0.9. R: 0.2/0.25 and 1, mean 0.9. The others are filtered out."""
    candidates = [
        unlearned(0.2, 0.25, 0.45),
        unlearned(0.1, 0.1, 0.2),
        unlearned(0.5, 1.0, 1.0),
        unlearned(0.2, 1.0, 1.0, kept=False),
    ]
    found = metric_trust("m", [*KNOWING, *candidates], RETRAINED, TrustConfig(), 0)
    assert (found.faithfulness.value, found.threshold) == (1.0, pytest.approx(0.45))
    assert (found.quantize.value, found.quantize.n) == (pytest.approx(0.9), 2)
    assert (found.relearn.value, found.relearn.n) == (pytest.approx(0.9), 2)
    assert found.robustness.value == pytest.approx(0.9)
    assert found.robustness.low == pytest.approx(0.8)
    assert found.robustness.high == pytest.approx(1.0)
    assert found.verdict == "trust"


def test_a_metric_that_an_attack_surprises() -> None:
    """Q 0.1 and R 1 give 2 / 11; a single model has no interval."""
    found = metric_trust("m", [*KNOWING, unlearned(0.05, 0.5, 0.1)], RETRAINED, TrustConfig(), 0)
    assert found.robustness.value == pytest.approx(2 / 11)
    assert found.robustness.low is None
    assert found.verdict == "faithful, not robust"
    assert metric_trust("m", KNOWING, RETRAINED, TrustConfig(), 0).verdict == "faithful, robustness not measured"


def test_a_ratio_needs_values_that_are_not_below_0() -> None:
    """A loss of 3, turned, is -2: its R is a quotient of differences, its Q would say nothing, its symmetric Q does."""
    losing = unlearned(-2.0, -1.0, -1.9)
    found = metric_trust("m", [*KNOWING, losing], RETRAINED, TrustConfig(), 0)
    assert found.relearn.value == pytest.approx(1.0)
    assert (found.quantize.value, found.verdict) == (None, "faithful, robustness not measured")
    assert found.quantize.reason == "Q is a ratio: needs values of at least 0, also with quantized weights"
    both = metric_trust("m", [*KNOWING, losing], RETRAINED, TrustConfig(symmetric=True), 0)
    assert both.quantize.value == pytest.approx(1 - 1 / 3)


def test_a_metric_that_cannot_tell() -> None:
    mixed = pool((True, 0.9), (True, 0.1), (False, 0.8), (False, 0.2))
    assert metric_trust("m", mixed, None, TrustConfig(), 0).verdict == "not shown faithful"
    few = pool((True, 0.9), (True, 0.8), (False, 0.1), (False, 0.2))
    found = metric_trust("m", few, None, TrustConfig(), 0)
    assert (found.faithfulness.value, found.verdict) == (1.0, "not shown faithful")


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        (pool((True, 0.9)), "no model of the pool that does not know"),
        (pool((False, 0.9)), "no model of the pool that knows"),
        (pool((True, None), (False, 0.1)), "no rows"),
    ],
)
def test_what_cannot_be_told_has_a_reason(models: list[PoolModel], reason: str) -> None:
    found = metric_trust("m", models, None, TrustConfig(), 0)
    assert (found.faithfulness.value, found.faithfulness.reason, found.threshold) == (None, reason, None)
    assert found.robustness.reason == "no threshold without faithfulness"


@pytest.mark.parametrize(
    ("candidates", "retrained", "reason"),
    [
        ([], RETRAINED, "no unlearned model in the pool"),
        ([unlearned(0.1, 0.1, 0.1, kept=False)], RETRAINED, "no unlearned model of enough utility"),
        ([unlearned(0.8, 0.9, 0.9)], RETRAINED, "no unlearned model looks as if it did not know"),
        ([unlearned(0.1, 0.1, 0.1)], None, "needs a retrained model, and unlearned ones that were trained again"),
    ],
)
def test_why_there_is_no_robustness(candidates: list[PoolModel], retrained: PoolModel | None, reason: str) -> None:
    found = metric_trust("m", [*KNOWING, *candidates], retrained, TrustConfig(), 0)
    assert (found.relearn.value, found.relearn.reason) == (None, reason)
    assert found.robustness.value is None
