"""From row values to scores: intervals, counts, reasons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from expunge.core.errors import UserError
from expunge.core.records import Score
from expunge.data.example import Example
from expunge.evaluate.base import Item
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.score import item_values, load_metrics, needs_of, score
from expunge.models.generate import Scored


def _scores(name: str, *values: float | str, split: str = "retain", seed: int = 0) -> Score:
    metrics = load_metrics(EvaluateConfig(metrics=(name,)))
    return score({split: {name: list(values)}}, metrics, seed)[split][name]


def test_interval_of_a_mean() -> None:
    """The bootstrap of a mean of n = 400 normal values is near mean +- 1.96 s / sqrt(n)."""
    draws = np.random.default_rng(1).normal(0.5, 0.1, 400)
    found = _scores("probability", *draws)
    half = 1.96 * draws.std() / math.sqrt(400)
    assert found.value == pytest.approx(draws.mean())
    assert found.low == pytest.approx(draws.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(draws.mean() + half, abs=0.1 * half)
    assert found.n == 400


@pytest.mark.parametrize("name", ["probability", "perplexity", "keyword_recall", "truth_ratio"])
@pytest.mark.parametrize("values", [(1.0,), (1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (0.0,) * 9 + (1.0,), (0.0, 0.0)])
def test_interval_holds_the_value(name: str, values: tuple[float, ...]) -> None:
    values = tuple(1 + 9 * value for value in values) if name == "perplexity" else values
    found = _scores(name, *values)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value + 1e-12
    assert found.high >= found.value - 1e-12


def test_no_leak_among_few_questions_is_no_certainty() -> None:
    """0 of 8: Wilson's upper end is z^2 / (n + z^2) = 3.84 / 11.84 = 0.324; a bootstrap would say 0 to 0."""
    found = _scores("keyword_recall", *[0.0] * 8, split="forget")
    assert (found.value, found.low, found.n) == (0.0, 0.0, 8)
    assert found.high == pytest.approx(3.8415 / 11.8415, abs=1e-3)


def test_interval_of_perplexity_is_of_its_own_aggregate() -> None:
    """Geometric mean of 1 and 10000 is 100; the arithmetic one, 5000, must not appear."""
    found = _scores("perplexity", 1.0, 10000.0)
    assert found.value == pytest.approx(100)
    assert (found.low, found.high) == (1.0, pytest.approx(10000.0))


def test_rows_without_a_number_are_left_out() -> None:
    """Not counted as 0, and not in n."""
    found = _scores("probability", 0.5, "rows without an answer", 0.7)
    assert (found.value, found.n, found.reason) == (pytest.approx(0.6), 2, None)
    absent = _scores("probability", "rows without an answer", "rows without an answer")
    assert (absent.value, absent.low, absent.n, absent.reason) == (None, None, 0, "rows without an answer")
    assert _scores("probability").reason == "no rows"


def test_interval_depends_on_the_seed_alone() -> None:
    values = (0.1, 0.4, 0.5, 0.9, 0.2, 0.31, 0.77, 0.63)
    assert _scores("probability", *values, seed=3) == _scores("probability", *values, seed=3)
    assert _scores("probability", *values, seed=3).low != _scores("probability", *values, seed=4).low


def test_values_that_are_no_numbers_are_absent() -> None:
    """A collapsed model may answer with NaN: that is a reason, never a score."""
    metrics = load_metrics(EvaluateConfig(metrics=("probability", "truth_ratio")))
    broken = Item(Example("a", "Q", "A"), answer=Scored((math.nan,), (False,)))
    whole = Item(Example("b", "Q", "A"), answer=Scored((math.log(0.5),), (True,)))
    values = item_values({"forget": [broken, whole]}, metrics)
    assert values["forget"]["probability"] == ["the model gave a probability that is not a number", pytest.approx(0.5)]
    assert values["forget"]["truth_ratio"] == ["rows without perturbed_answer"] * 2
    found = score(values, metrics, 0)["forget"]
    assert (found["probability"].value, found["probability"].n) == (pytest.approx(0.5), 1)
    assert found["probability"].better == "lower"


def test_options_reach_their_metric() -> None:
    """Words in an n-gram: a b a b has one repeated pair of three, and no repeated triple."""
    (found,) = load_metrics(EvaluateConfig(metrics=("repetition",), options={"repetition": {"n": 2}})).values()
    assert found.value(Item(Example("a", "Q", "A"), greedy="a b a b"), "forget") == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repetitoin": {"n": 2}}, "did you mean repetition"),
        ({"repetition": {"m": 2}}, "unknown key 'evaluate.options.repetition.m'"),
        ({"repetition": {"n": 0}}, "evaluate.options.repetition.n"),
        ({"repetition": {"n": "two"}}, "evaluate.options.repetition.n"),
        ({"cosine_similarity": {"encodr": "x"}}, "did you mean encoder"),
        ({"cosine_similarity": {"reference": "gold"}}, "evaluate.options.cosine_similarity.reference"),
        ({"entailment": {"model": "./nowhere"}}, "evaluate.options.entailment.model: ./nowhere: no such file"),
    ],
)
def test_mistakes_in_options(options: dict[str, dict[str, Any]], message: str) -> None:
    """Options of a metric that is not taken are checked as well."""
    names = ("probability", *(("entailment",) if "entailment" in options else ()))
    with pytest.raises(UserError, match=message):
        load_metrics(EvaluateConfig(metrics=names, options=options))


def test_reference_is_named_in_the_score() -> None:
    found = _scores("cosine_similarity", 0.5, 0.7)
    assert found.reference == "the original model's greedy answer, by all-minilm-l6-v2"
    assert _scores("cosine_similarity", "no").reference == found.reference
    assert _scores("probability", 0.5).reference is None


def test_needs_are_the_union() -> None:
    metrics = load_metrics(EvaluateConfig(metrics=("probability", "keyword_recall")))
    assert needs_of(metrics) == {"answer", "greedy"}
    with pytest.raises(UserError, match="did you mean probability"):
        load_metrics(EvaluateConfig(metrics=("probabilty",)))


def test_rows_about_one_person_are_drawn_together() -> None:
    """Four persons of three equal rows each: the interval is that of four rows; a row without a number is left out."""
    levels = (0.1, 0.4, 0.9, 0.2)
    values: dict[str, dict[str, list[float | str]]] = {
        "forget": {"probability": ["absent", *(level for level in levels for _ in range(3))]}
    }
    persons = [None, *(f"person {index}" for index in range(4) for _ in range(3))]
    metrics = load_metrics(EvaluateConfig(metrics=("probability",)))
    found = score(values, metrics, 5, units={"forget": persons})["forget"]["probability"]
    four = score({"forget": {"probability": [*levels]}}, metrics, 5)["forget"]["probability"]
    assert (found.low, found.high, found.n, found.clusters) == (
        pytest.approx(four.low),
        pytest.approx(four.high),
        12,
        4,
    )
