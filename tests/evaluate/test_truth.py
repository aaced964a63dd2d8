"""Probabilities of other wordings and of wrong answers, and what is made of them."""

from __future__ import annotations

import math

import pytest
from worked import ROW, metric, scored

from expunge.data.example import Example
from expunge.evaluate.base import Absent, Item
from expunge.models.generate import Scored

KNOWS = Item(
    ROW,
    answer=scored(0.5),
    paraphrased_answer=scored(0.5, 0.125),
    perturbed_answer=(scored(0.25), scored(0.0625, 0.0625)),
)
"""Paraphrase sqrt(1/16) = 1/4; wrong answers 1/4 and 1/16, their geometric mean 1/8: R = 1/2."""


def test_paraphrased_and_perturbed_probability() -> None:
    """Paraphrase 1/4. Wrong answers 1/4 and 1/16: each is exponentiated before the mean, so 5/32 and not 1/8."""
    assert metric("paraphrased_probability").value(KNOWS, "forget") == pytest.approx(0.25)
    assert metric("perturbed_probability").value(KNOWS, "forget") == pytest.approx(5 / 32)
    for name, lacking in (("paraphrased_probability", "paraphrased_answer"), ("perturbed_probability", "perturbed")):
        with pytest.raises(Absent, match=lacking):
            metric(name).value(Item(ROW, answer=scored(0.5)), "forget")


def test_raw_truth_ratio_and_truth_probability() -> None:
    """R = (1/8) / (1/4) = 1/2, and (1/4) / (1/4 + 1/8) = 2/3 = 1 / (1 + R), on every split alike."""
    for split in ("forget", "retain"):
        assert metric("raw_truth_ratio").value(KNOWS, split) == pytest.approx(0.5)
        assert metric("truth_probability").value(KNOWS, split) == pytest.approx(2 / 3)
    assert metric("raw_truth_ratio").better("forget") == "neither"
    assert [metric("truth_probability").better(split) for split in ("forget", "retain")] == ["lower", "higher"]
    errs = Item(ROW, answer=Scored((-2000.0,), (False,)), perturbed_answer=(scored(0.5),))
    assert math.isfinite(metric("raw_truth_ratio").value(errs, "forget"))
    assert metric("truth_probability").value(errs, "forget") == pytest.approx(0, abs=1e-300)


def test_aggregators_of_the_truth_ratio() -> None:
    """R = 1/2: min(R, 1/R) = 1/2, max(0, 1 - R) = 1/2, 1 / (1 + R) = 2/3; R = 2: 1/2, 0, 1/3. The role plays no part.

    2/3 is knowledge: lower is wanted on forget rows. The other two are written so that higher is wanted.
    """
    errs = Item(ROW, answer=scored(0.125), perturbed_answer=(scored(0.25),))
    expected = {"closer_to_1_better": (0.5, 0.5), "true_better": (0.5, 0), "prob_mean": (2 / 3, 1 / 3)}
    for aggregator, values in expected.items():
        found = metric("truth_ratio", aggregator=aggregator)
        for split in ("forget", "retain"):
            assert [found.value(item, split) for item in (KNOWS, errs)] == pytest.approx(list(values))
    assert metric("truth_ratio", aggregator="prob_mean").better("forget") == "lower"
    assert metric("truth_ratio", aggregator="true_better").better("forget") == "higher"


def test_where_1e_10_in_the_denominator_shows() -> None:
    """Right and wrong both 1e-10: R = 1, but 1e-10 / 2e-10 = 1/2 with 1e-10 added. Options 1e-10 each: 1/2 and 1/3.

    min(R, 1/R) of R = 1/2 is 1/2 for both.
    """
    unlikely = scored(1e-10)
    row = Item(ROW, answer=unlikely, perturbed_answer=(unlikely,))
    for compat, ratio, share in ((False, 1, 1 / 2), (True, 1 / 2, 1 / 3)):
        assert metric("raw_truth_ratio", ou_compat=compat).value(row, "forget") == pytest.approx(ratio)
        assert metric("truth_ratio", ou_compat=compat).value(row, "forget") == pytest.approx(ratio)
        assert metric("normalised_probability", ou_compat=compat).value(row, "general") == pytest.approx(share)
    hopeless = Item(ROW, answer=scored(0.5), perturbed_answer=(Scored((-2000.0,), (False,)),))
    assert metric("truth_ratio").value(hopeless, "forget") == 0
    assert metric("truth_ratio", ou_compat=True).value(hopeless, "forget") == 0


@pytest.mark.parametrize(
    ("hit", "text", "strength", "strength_in_ou", "share", "share_in_ou"),
    [
        ((0, 0, 0, 0, 1), None, 0, 1 / 4, 0, 0),
        ((1, 1, 1, 0, 1), None, 0, 1 / 4, 3 / 4, 3 / 4),
        ((0, 1, 1, 1, 0), None, 3 / 4, 3 / 4, 3 / 4, 3 / 4),
        ((0, 1, 1, 1, 0), "a document", 0, 3 / 4, 3 / 5, 3 / 4),
        ((0, 0, 1, 1, 1), "a document", 3 / 5, 1 / 2, 3 / 5, 1 / 2),
    ],
)
def test_where_openunlearning_counts_otherwise(
    hit: tuple[int, ...], text: str | None, strength: float, strength_in_ou: float, share: float, share_in_ou: float
) -> None:
    """Of five labels an answer's last is the end token: N = 4; a document has none: N = 5, but 4 in OpenUnlearning.

    Its extraction strength never falls below 1/N.
    """
    row = Example("r", text=text) if text else ROW
    item = Item(row, answer=Scored((-1.0,) * len(hit), tuple(map(bool, hit))))
    for compat, expected in ((False, (strength, share)), (True, (strength_in_ou, share_in_ou))):
        names = ("extraction_strength", "exact_memorization")
        assert [metric(name, ou_compat=compat).value(item, "forget") for name in names] == pytest.approx(expected)
