"""OpenUnlearning's aggregates, worked by hand and by scipy."""

from __future__ import annotations

import pytest
from scipy.stats import hmean

from expunge.core.records import Aggregates, Score, Scores
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.items import Values
from expunge.evaluate.score import load_metrics, score
from expunge.evaluate.summary import summarise

FORGET = {
    "extraction_strength": 0.2,
    "exact_memorization": 0.5,
    "paraphrased_probability": 0.1,
    "truth_probability": 0.6,
    "gibberish": 0.9,
}
OTHERS = {"rouge_l_recall": 0.4, "probability": 0.3, "normalised_probability": 0.5, "truth_ratio": 0.7}
PRIVATE = {"privacy_loss": 0.9, "privacy_zlib": 0.8, "privacy_min_k": 0.7, "privacy_min_k_plus_plus": 0.6}
ROLES = ("retain", "neighbour", "general")
NEW = ["memorisation4", "privacy4", "utility10", "agg14", "overall18"]


def values_of(forget: dict[str, float] = FORGET) -> Values:
    rows: Values = {"forget": {name: [value] * 4 for name, value in forget.items()}}
    return rows | {role: {name: [value] * 4 for name, value in OTHERS.items()} for role in ROLES}


def summary(values: Values, private: dict[str, float | None], unlike: tuple[str, ...] = ()) -> Aggregates:
    names = tuple(sorted({name for some in values.values() for name in some}))
    scores: Scores = score(values, load_metrics(EvaluateConfig(metrics=names)), 0)
    for name, value in private.items():
        scores["forget"][name] = Score(value=value, reason=None if value is not None else "no holdout rows")
    return summarise(values, scores, 0, unlike=unlike)


def test_worked_by_hand() -> None:
    """Memorisation of .8, .5, .9, .4: 4 / (1.25 + 2 + 1.1111 + 2.5). Privacy of .9, .8, .7, .6. mu9 of retain
    (.4, .3, .7) and twice (.4, .5, .7); Utility of that and .9. Agg of the first and the third, Overall of all three.
    """
    found = summary(values_of(), {**PRIVATE})
    assert found["memorisation4"].value == pytest.approx(4 / (1.25 + 2 + 1 / 0.9 + 2.5))
    memorisation, privacy = hmean([0.8, 0.5, 0.9, 0.4]), hmean([0.9, 0.8, 0.7, 0.6])
    utility = hmean([hmean([0.4, 0.3, 0.7, *[0.4, 0.5, 0.7] * 2]), 0.9])
    assert [found[name].value for name in NEW] == pytest.approx(
        [memorisation, privacy, utility, hmean([memorisation, utility]), hmean([memorisation, privacy, utility])]
    )
    assert [len(found[name].components) for name in NEW] == [4, 4, 10, 14, 18]
    assert found["mu9"].value == pytest.approx(hmean([0.4, 0.3, 0.7, *[0.4, 0.5, 0.7] * 2]))


def test_intervals_are_of_rows_and_what_has_none_has_no_interval() -> None:
    """All rows are alike, so the ends are the value; a score over sets cannot be resampled here."""
    found = summary(values_of(), {**PRIVATE})
    for name in ("memorisation4", "utility10", "agg14"):
        assert [found[name].low, found[name].high] == pytest.approx([found[name].value] * 2)
    assert (found["privacy4"].low, found["overall18"].low) == (None, None)


def test_told_of_only_where_all_is_measured() -> None:
    assert not set(NEW) & set(summary(values_of({"extraction_strength": 0.2}), {}))
    assert [name for name in summary(values_of(), {}) if name in NEW] == ["memorisation4", "utility10", "agg14"]
    found = summary(values_of(), {**PRIVATE, "privacy_zlib": None})
    assert (found["privacy4"].value, found["overall18"].value) == (None, None)
    assert "no holdout rows" in str(found["privacy4"].reason)
    assert found["agg14"].value is not None


def test_a_zero_is_named() -> None:
    """All answer tokens are first choices: 1 - 1 = 0, and so is every mean that it enters."""
    found = summary(values_of({**FORGET, "exact_memorization": 1.0}), {**PRIVATE})
    for name in ("memorisation4", "agg14", "overall18"):
        assert (found[name].value, found[name].zeroed_by) == (0, ["forget/1 - exact_memorization"])
    assert found["utility10"].value


def test_a_metric_under_options_that_change_it_enters_nothing() -> None:
    """The truth ratio as a share of probability is high where the one that utility means is high for other reasons."""
    found = summary(values_of(), {**PRIVATE}, unlike=("truth_ratio",))
    assert found["mu9"].value is None
    assert "another quantity" in str(found["mu9"].reason)
    assert found["memorisation4"].value is not None
    options = {"truth_ratio": {"aggregator": "prob_mean"}}
    names = ("truth_ratio", "probability")
    metrics = load_metrics(EvaluateConfig(metrics=names, options=options))
    assert [name for name, metric in metrics.items() if not metric.usual] == ["truth_ratio"]
