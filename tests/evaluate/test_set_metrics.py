"""Scores over many rows: worked by hand, and against scipy and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstwobign
from sklearn.metrics import roc_auc_score, roc_curve
from worked import set_metric

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.records import Score
from expunge.evaluate.base import RowNumbers, SetMetric, SetValues
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.score import SET_FOLDER, load_set_metrics

Numbers = NDArray[np.float64]
NAMES = plugins.names(SET_FOLDER)
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")


def attacked(forget: Any, holdout: Any, *names: str) -> SetValues:
    """The same attack values under every name."""
    return {
        "forget": {name: RowNumbers(np.asarray(forget, dtype=float)) for name in names or ATTACKS},
        "holdout": {name: RowNumbers(np.asarray(holdout, dtype=float)) for name in names or ATTACKS},
    }


def rated(wins: int, of: int = 10) -> SetValues:
    """One forget row at 0, of ten holdout rows this many above it and the others below: AUC = wins / 10."""
    return attacked([0.0], [1.0] * wins + [-1.0] * (of - wins))


def noise(count: int, mean: float, seed: int) -> Numbers:
    return np.random.default_rng(seed).normal(mean, 1, count)


def full(seed: int, known: float) -> SetValues:
    """Values of every kind; what is known makes the forget rows' losses low."""
    base = attacked(noise(30, -known, seed), noise(30, 0, seed + 1))
    extra = {
        "raw_truth_ratio": RowNumbers(np.exp(noise(30, 1 - known, seed))),
        "probability": RowNumbers(np.full(30, known / 2)),
    }
    return {"forget": {**base["forget"], **extra}, "holdout": base["holdout"]}


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str) -> None:
    """With all it could want there is a number inside its interval, the same for one seed; without, a reason."""
    found = set_metric(name)
    mine, reference, original = full(0, 0.8), full(2, 0.0), full(4, 1.6)
    assert set(found.needs_values) - {"mia_reference"} <= set(mine["forget"])
    scores = found.scores(mine, reference, 0, original)
    assert scores
    for one in scores.values():
        assert one.value is not None, one.reason
        assert one.reason is None
        assert one.n > 0
        if one.low is not None:
            assert one.high is not None
            assert one.low <= one.value <= one.high
    assert found.scores(mine, reference, 0, original) == scores
    for values, others in (({}, reference), ({"forget": {}}, reference)):
        for one in found.scores(values, others, 0, original).values():  # type: ignore[arg-type]
            assert one.value is None
            assert one.reason
    needed = {name for name in scores if "mia" not in name}
    for name, one in found.scores(mine, None, 0, None).items():
        assert name not in needed or (one.value is None and one.reason)


def test_forget_quality_by_hand() -> None:
    """Four rows each, all of the model's below the reference's: D = 1, p = 2 / C(8, 4) = 1/35. Equal rows: p = 1."""
    low, high = ({"forget": {"raw_truth_ratio": RowNumbers(np.arange(4.0) + shift)}} for shift in (0, 10))
    found = set_metric("forget_quality").scores(low, high, 0)
    assert found["forget_quality"].value == pytest.approx(1 / 35)
    assert found["log10_forget_quality"].value == pytest.approx(-math.log10(35))
    assert found["forget_quality"].reference == "retrained"
    assert set_metric("forget_quality").scores(low, low, 0)["forget_quality"].value == 1


def test_forget_quality_against_kolmogorovs_distribution() -> None:
    """With many rows p nears the limit law of sqrt(nm / (n + m)) D, D worked from the two step functions here."""
    mine, theirs = np.exp(noise(3000, 0, 0)), np.exp(noise(3000, 0.05, 1))
    both = np.sort(np.concatenate([mine, theirs]))
    steps = [np.searchsorted(np.sort(some), both, side="right") / len(some) for some in (mine, theirs)]
    distance = np.abs(steps[0] - steps[1]).max()
    expected = kstwobign.sf(math.sqrt(1500) * distance)
    found = set_metric("forget_quality").scores(
        {"forget": {"raw_truth_ratio": RowNumbers(mine)}}, {"forget": {"raw_truth_ratio": RowNumbers(theirs)}}, 0
    )
    assert found["forget_quality"].value == pytest.approx(expected, rel=0.05)


def test_a_p_value_of_zero_has_no_logarithm() -> None:
    low, high = ({"forget": {"raw_truth_ratio": RowNumbers(noise(2000, mean, 0))}} for mean in (0, 100))
    found = set_metric("forget_quality").scores(low, high, 0)
    assert found["forget_quality"].value == 0
    assert found["log10_forget_quality"].value is None
    assert "0" in str(found["log10_forget_quality"].reason)


def test_membership_by_hand() -> None:
    """Forget 1, 2, 3; holdout 2, 4. Pairs with holdout above: 2 of 2, 1.5, 1 of 2 -> 4.5 / 6.

    At 1% of two holdout rows none may be flagged: below 2 lies one forget row of three.
    """
    found = set_metric("membership").scores(attacked([1, 2, 3], [2, 4], "mia_loss"), None, 0)
    assert list(found) == ["mia_loss_auc", "mia_loss_tpr_at_1_percent"]
    assert found["mia_loss_auc"].value == pytest.approx(0.75)
    assert (found["mia_loss_auc"].n, found["mia_loss_auc"].chance) == (5, 0.5)
    assert found["mia_loss_tpr_at_1_percent"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(("members", "others"), [(40, 60), (300, 400), (7, 100)])
def test_membership_against_scikit_learn(members: int, others: int) -> None:
    """AUC by `roc_auc_score`, and the best rate of `roc_curve` at no more than 1%, with ties among the values."""
    forget, holdout = noise(members, -1, 0).round(1), noise(others, 0, 1).round(1)
    found = set_metric("membership").scores(attacked(forget, holdout, "mia_zlib"), None, 0)
    labels = [0] * members + [1] * others
    assert found["mia_zlib_auc"].value == pytest.approx(roc_auc_score(labels, [*forget, *holdout]))
    false, true, _ = roc_curve(np.array(labels) == 0, -np.concatenate([forget, holdout]), drop_intermediate=False)
    assert found["mia_zlib_tpr_at_1_percent"].value == pytest.approx(true[false <= 0.01].max())


def test_the_interval_of_an_auc_is_that_of_resampled_rows() -> None:
    """Scikit-learn's AUC of rows drawn here, another 2000 times: ends within sampling error. Independent rows: 0.5."""
    forget, holdout = noise(50, -1, 0), noise(50, 0, 1)
    generator = np.random.default_rng(9)
    draws = [
        roc_auc_score([0] * 50 + [1] * 50, [*generator.choice(forget, 50), *generator.choice(holdout, 50)])
        for _ in range(2000)
    ]
    score = set_metric("membership").scores(attacked(forget, holdout, "mia_loss"), None, 0)["mia_loss_auc"]
    assert [score.low, score.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)


def test_rows_about_one_author_are_one_unit() -> None:
    """Five copies of each row under its author's name change neither the AUC nor the width of its interval."""
    forget, holdout = noise(40, -1, 0), noise(40, 0, 1)

    def repeated(values: Numbers, times: int) -> RowNumbers:
        authors = [f"author {row}" for row in range(len(values)) for _ in range(times)]
        return RowNumbers(np.repeat(values, times), authors)

    once, five = (
        set_metric("membership").scores(
            {"forget": {"mia_loss": repeated(forget, times)}, "holdout": {"mia_loss": repeated(holdout, times)}},
            None,
            0,
        )
        for times in (1, 5)
    )
    for name in once:
        assert (five[name].low, five[name].high) == pytest.approx((once[name].low, once[name].high))
        assert (once[name].n, once[name].clusters, five[name].n, five[name].clusters) == (80, None, 400, 80)


def test_membership_takes_every_attack_that_was_measured() -> None:
    values = {
        "forget": dict.fromkeys(("mia_loss", "mia_gradnorm", "probability"), RowNumbers(np.zeros(2))),
        "holdout": {"mia_loss": RowNumbers(np.array([])), "mia_gradnorm": RowNumbers(np.ones(2))},
    }
    found = set_metric("membership").scores(values, None, 0)  # type: ignore[arg-type]
    assert {name for name, score in found.items() if score.value is not None} == {
        "mia_gradnorm_auc",
        "mia_gradnorm_tpr_at_1_percent",
    }
    assert found["mia_loss_auc"].reason == "no holdout rows with mia_loss"


@pytest.mark.parametrize(
    ("mine", "retrained", "leak", "relative"),
    [(10, 5, -100, 100), (5, 5, 0, 0), (8, 6, -50, 100 / 3), (2, 6, 100, -200 / 3)],
)
def test_against_the_retrained_model(mine: int, retrained: int, leak: float, relative: float) -> None:
    """A = 1, .5, .8, .2; retrained .5 or .6: 100 ((1 - A) - (1 - A_r)) / (1 - A_r) and 100 (A - A_r) / A_r."""
    for name, expected in (("privleak", leak), ("relative_difference", relative)):
        score = set_metric(name).scores(rated(mine), rated(retrained), 0)[name]
        assert score.value == pytest.approx(expected, abs=1e-9)
        assert (score.chance, score.reference) == (0, "retrained")


def test_an_assumed_auc_is_named_and_never_silent() -> None:
    """Without a reference there is no number unless the user says what to assume: (0.2 - 0.5) / 0.5 is -60%."""
    assert set_metric("privleak").scores(rated(8), None, 0)["privleak"].reason == "retrained reference: not given"
    score = set_metric("privleak", assumed_auc=0.5).scores(rated(8), None, 0)["privleak"]
    assert score.value == pytest.approx(-60)
    assert score.reference == "an assumed AUC of 0.5"
    given = set_metric("privleak", assumed_auc=0.5).scores(rated(8), {"forget": {}}, 0)["privleak"]
    assert given.value is None
    assert "no forget rows" in str(given.reason)


def test_nothing_to_divide_by() -> None:
    """A_retrained = 1: 1 - A_r = 0. OpenUnlearning's 1e-10 makes it 100 * 0.5 / 1e-10."""
    assert set_metric("privleak").scores(rated(5), rated(10), 0)["privleak"].value is None
    compat = set_metric("privleak", ou_compat=True).scores(rated(5), rated(10), 0)["privleak"]
    assert compat.value == pytest.approx(5e11)


def test_another_attack_can_be_compared() -> None:
    found = set_metric("privleak", attack="mia_zlib")
    assert found.needs_values == ("mia_zlib",)
    values = attacked([0], [1], "mia_zlib")
    assert found.scores(values, values, 0)["privleak"].reason is not None
    assert found.scores(values, attacked([0, 0], [1, -1], "mia_zlib"), 0)["privleak"].value == -100


def krd(before: float, now: float, ideal: float, **options: Any) -> Score:
    values = [{"forget": {"probability": RowNumbers(np.full(5, level))}} for level in (before, now, ideal)]
    return set_metric("krd", **options).scores(values[1], values[2], 0, values[0])["krd"]  # type: ignore[arg-type]


def test_krd_by_hand() -> None:
    """Nothing removed 0, all of it 1; half of what can be: (.8 - .5) / (.8 - .2) = .5; more than the goal: 7/6."""
    assert [krd(0.8, now, 0.2).value for now in (0.8, 0.2, 0.5, 0.1)] == pytest.approx([0, 1, 0.5, 7 / 6])
    assert krd(0.2, 0.1, 0.2).value is None
    assert "nothing can be removed" in str(krd(0.2, 0.1, 0.3).reason)


@pytest.mark.parametrize(("before", "now", "expected"), [(0.637, 0.312, 0.8398), (0.440, 0.282, 0.8316)])
def test_krd_of_published_accuracies(before: float, now: float, expected: float) -> None:
    """RMU on Zephyr-7B, WMDP bio and cyber, goal chance = .25: (63.7 - 31.2) / 38.7 and (44.0 - 28.2) / 19.0."""
    score = krd(before, now, math.nan, goal="chance")
    assert score.value == pytest.approx(expected, abs=5e-5)
    assert score.reference == "original; chance of 0.25"


def test_krd_needs_the_original() -> None:
    values = {"forget": {"probability": RowNumbers(np.ones(3))}}
    assert set_metric("krd").scores(values, values, 0)["krd"].reason == "no original model: rows with probability"  # type: ignore[arg-type]


@pytest.mark.parametrize(("now", "expected"), [(5, 1.0), (9, 0.2), (10, 0.0), (3, 0.6), (0, 0.0)])
def test_privacy_by_hand(now: int, expected: float) -> None:
    """Original 1, retrained .5: 1 - |A - .5| / .5 is 1, .2, 0, .6 at A = .5, .9, 1, .3 and 0 at A = 0."""
    found = set_metric("privacy").scores(rated(now), rated(5), 0, rated(10))
    assert list(found) == ["privacy_loss", "privacy_zlib", "privacy_min_k", "privacy_min_k_plus_plus"]
    for score in found.values():
        assert score.value == pytest.approx(expected)
    assert set_metric("privacy").scores(rated(now), rated(5), 0, rated(5))["privacy_loss"].value is None
    farther = set_metric("privacy").scores(rated(0), rated(4), 0, rated(5))["privacy_loss"]
    assert farther.value == 0


def test_options_are_checked() -> None:
    config = EvaluateConfig(set_metrics=("privleak",), options={"privleak": {"attack": "loss"}})
    with pytest.raises(UserError, match=r"evaluate\.options\.privleak\.attack"):
        load_set_metrics(config, by_default=True)
    assert all(isinstance(found, SetMetric) for found in load_set_metrics(EvaluateConfig(), by_default=True).values())
