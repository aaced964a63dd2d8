"""Aggregates: what enters, what makes one zero, and what happens when a part is absent."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.records import Aggregates
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.items import Values
from expunge.evaluate.score import load_metrics, score
from expunge.evaluate.summary import FAMILIES, forget_efficacy, harmonic_mean, summarise

METRICS = (
    "rouge_l_recall",
    "probability",
    "normalised_probability",
    "truth_ratio",
    "token_entropy",
    "cosine_similarity",
    "entailment",
)
SPLITS = ("forget", "retain", "neighbour", "general")


def rows(**means: float) -> Values:
    """Four rows everywhere, all with the same value: 0.5, or what is given for a metric."""
    return {split: {metric: [means.get(metric, 0.5)] * 4 for metric in METRICS} for split in SPLITS}


def summary(values: Values, seed: int = 0) -> Aggregates:
    return summarise(values, score(values, load_metrics(EvaluateConfig(metrics=METRICS)), seed), seed)


def absent(values: Values, metric: str, *splits: str) -> Values:
    return {
        split: {**some, metric: ["no judge"] * 4} if split in (splits or SPLITS) else some
        for split, some in values.items()
    }


def test_worked_by_hand() -> None:
    """FE: R .1, P .2, 1 - TR .1, CS .3, ES .0 have mean .14, so .86.

    mu9 with R .1, P .25, normalised P .5, TR .9: 9 / (3/.1 + 1/.25 + 2/.5 + 3/.9) = 9 / 41.3333.
    mu18 adds TE .5, CS .3, ES 1 on each: 18 / (41.3333 + 3 * (2 + 1/.3 + 1)). On one split the plain P enters.
    """
    values = rows(
        rouge_l_recall=0.1,
        probability=0.25,
        normalised_probability=0.5,
        truth_ratio=0.9,
        token_entropy=0.5,
        cosine_similarity=0.3,
        entailment=1.0,
    )
    values["forget"].update(probability=[0.2] * 4, entailment=[0.0] * 4, normalised_probability=["none"] * 4)
    found = summary(values)
    assert found["fe5"].value == pytest.approx(0.86)
    assert found["mu9"].value == pytest.approx(9 / (30 + 4 + 4 + 3 / 0.9))
    assert found["mu18"].value == pytest.approx(18 / (30 + 4 + 4 + 3 / 0.9 + 3 * (3 + 1 / 0.3)))
    one = 6 / (10 + 4 + 1 / 0.9 + 2 + 1 / 0.3 + 1)
    assert found["mu6_retain"].value == found["mu6_neighbour"].value == pytest.approx(one)
    assert list(found) == ["fe5", "mu18", "mu9", "mu6_retain", "mu6_neighbour"]


def test_names_count_the_components_and_every_one_is_shown() -> None:
    found = summary(rows())
    for family in (one for one in FAMILIES if one.always):
        parts = found[family.name].components
        assert len({(part.split, part.name) for part in parts}) == len(family.parts)
        assert family.name.removeprefix(family.stem).startswith(str(len(parts)))
    assert {part.split for part in found["fe5"].components} == {"forget"}
    assert "forget" not in {part.split for part in found["mu18"].components}


def test_forget_efficacy_is_one_only_without_any_trace() -> None:
    """The wanted form of the truth ratio on forget rows is 1; token entropy does not enter."""
    gone = {"rouge_l_recall": 0.0, "probability": 0.0, "truth_ratio": 1.0, "cosine_similarity": 0.0, "entailment": 0.0}
    assert summary(rows(**gone))["fe5"].value == 1
    for metric, value in gone.items():
        assert summary(rows(**{**gone, metric: abs(value - 0.01)}))["fe5"].value == pytest.approx(1 - 0.01 / 5)
    spoken, stuck = (summary(rows(**gone, token_entropy=entropy))["fe5"] for entropy in (1.0, 0.0))
    assert spoken == stuck


def test_rules_on_random_components() -> None:
    """FE + mean = 1; the harmonic mean lies between the smallest and the arithmetic mean; equals give themselves."""
    components = np.random.default_rng(0).uniform(0.01, 1, (6, 500))
    assert forget_efficacy(components) + components.mean(0) == pytest.approx(1)
    harmonic = harmonic_mean(components)
    assert (harmonic <= components.mean(0)).all()
    assert (harmonic >= components.min(0)).all()
    assert harmonic_mean(np.full(18, 0.3)) == pytest.approx(0.3)
    components[2, 7] = 0
    assert harmonic_mean(components)[7] == 0
    assert (harmonic_mean(components) > 0).sum() == 499


def test_a_zero_is_named() -> None:
    values = rows()
    values["general"]["entailment"] = [0.0] * 4
    found = summary(values)
    assert (found["mu18"].value, found["mu18"].zeroed_by) == (0.0, ["general/entailment"])
    assert found["mu9"].value == pytest.approx(0.5)
    assert found["mu6_retain"].zeroed_by == []
    values["forget"]["entailment"] = [0.0] * 4
    assert summary(values)["fe5"].zeroed_by == []


def test_an_absent_part_makes_the_whole_absent_and_a_reduced_one_named() -> None:
    found = summary(absent(rows(probability=0.25), "entailment"))
    for name in ("fe5", "mu18", "mu6_retain", "mu6_neighbour"):
        assert (found[name].value, found[name].reason) == (None, "entailment: no judge")
        assert [part.reason for part in found[name].components if part.value is None] == ["no judge"] * (
            3 if name == "mu18" else 1
        )
    assert found["mu9"].value is not None
    assert found["fe4_without_entailment"].value == pytest.approx(1 - 1.75 / 4)
    assert found["mu15_without_entailment"].value == pytest.approx(15 / (14 * 2 + 4))
    assert found["mu5_retain_without_entailment"].value == pytest.approx(5 / (4 * 2 + 4))


def test_a_part_absent_on_one_split_is_left_out_on_all() -> None:
    found = summary(absent(rows(), "truth_ratio", "general"))
    reduced = found["mu15_without_truth_ratio"]
    assert "truth_ratio" not in {part.name for part in reduced.components}
    assert found["mu9"].reason == "truth_ratio: no judge"
    assert found["mu6_retain"].value == pytest.approx(0.5)


def test_too_little_is_left_for_a_reduced_one() -> None:
    """Of five on forget rows two remain."""
    values = absent(absent(absent(rows(), "entailment"), "cosine_similarity"), "truth_ratio")
    assert [name for name in summary(values) if name.startswith("fe")] == ["fe5"]


def test_a_split_that_was_not_measured() -> None:
    values = {split: some for split, some in rows().items() if split != "general"}
    found = summary(values)
    assert found["mu18"].reason == found["mu9"].reason == "general not measured"
    assert not any("without" in name for name in found)
    assert found["mu6_neighbour"].value == pytest.approx(0.5)


def test_interval_of_forget_efficacy() -> None:
    """All five parts are the same normal draws: FE is 1 - their mean, and its interval +- 1.96 s / sqrt(n)."""
    draws = np.random.default_rng(1).normal(0.3, 0.1, 400)
    values = rows()
    values["forget"] = {metric: list(draws) for metric in METRICS}
    values["forget"]["truth_ratio"] = list(1 - draws)
    found = summary(values)["fe5"]
    half = 1.96 * draws.std() / 20
    assert found.value == pytest.approx(1 - draws.mean())
    assert found.low == pytest.approx(1 - draws.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(1 - draws.mean() + half, abs=0.1 * half)


def test_interval_leaves_out_rows_without_a_number_and_depends_on_the_seed_alone() -> None:
    """Constant rows have no width, whichever of them are missing; others repeat with their seed."""
    values = rows()
    values["retain"]["truth_ratio"] = [0.5, "absent", 0.5, "absent"]
    found = summary(values)["mu6_retain"]
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
    values["retain"] = {metric: list(np.linspace(0.1, 0.9, 40)) for metric in METRICS}
    assert summary(values, 3) == summary(values, 3)
    assert summary(values, 3)["mu6_retain"].low != summary(values, 4)["mu6_retain"].low
