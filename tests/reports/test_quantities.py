"""Numbers worked out from a record."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.reports.quantities import RecordQuantity, at_path, cell, knowledge_removed, value_of

RECORD: dict[str, Any] = {
    "before": {"forget": {"recall": {"value": 0.8}}, "retain": {"recall": {"value": 0.5}, "p": {"value": 0.0}}},
    "after": {"forget": {"recall": {"value": 0.2}}, "retain": {"recall": {"value": 0.4}, "p": {"value": 0.1}}},
    "steps": [{"x": 9.0}, {"x": 1.0}, {"y": 5.0}, {"x": 3.0}],
}


def test_knowledge_removed_by_hand() -> None:
    """RMU on Zephyr with chance 0.25, from WMDP accuracies: (63.7 - 31.2) / (63.7 - 25) bio, (44 - 28.2) / 19 cyber."""
    assert knowledge_removed(63.7, 31.2, 25) == pytest.approx(0.8398, abs=1e-4)
    assert knowledge_removed(44.0, 28.2, 25) == pytest.approx(0.8316, abs=1e-4)
    assert knowledge_removed(0.8, 0.8, 0.1) == 0
    assert knowledge_removed(0.8, 0.1, 0.1) == 1
    assert knowledge_removed(0.2, 0.1, 0.2) is None, "nothing was known that could be removed"


def test_what_is_kept_and_removed() -> None:
    """0.4 / 0.5 of retain and 0.2 / 0.8 of forget: 0.525 on average."""
    assert cell(RECORD, RecordQuantity(kept=("retain.recall", "forget.recall"))) == pytest.approx(0.525)
    assert cell(RECORD, RecordQuantity(kept=("retain.recall", "general.recall"))) is None
    assert cell(RECORD, RecordQuantity(kept=("retain.p",))) is None, "a share of nothing is no number"
    assert cell(RECORD, RecordQuantity(removed="forget.recall", floor=0.2)) == pytest.approx(1.0)
    assert cell(RECORD, RecordQuantity(removed="general.recall")) is None
    assert cell(RECORD, RecordQuantity(over=("steps.0.x", "steps.-1.x"))) == 3
    assert cell(RECORD, RecordQuantity(over=("steps.0.x", "steps.2.x"))) is None


def test_what_an_attack_got() -> None:
    """By variant; of an attack, the most of each row, or of its only variant; nothing where none was carried out."""

    def score(variant: str, got: float) -> dict[str, Any]:
        numbers = {"knowledge": {"value": got}, "recovered": {"value": 2 * got}}
        return {"variant": variant, **numbers, "controls": {"original": {"value": 0.9}}}

    attacks = [
        {"name": "prompting", "variants": [score("story", 0.1), score("gap", 0.2)], "worst": score("worst", 0.25)},
        {"name": "noise", "variants": [score("", 0.3)], "worst": None},
        {"name": "gcg", "variants": [], "worst": None},
    ]
    record = {"robustness": {"attacks": attacks}}
    assert value_of(record, RecordQuantity(got="prompting")) == 0.25
    assert value_of(record, RecordQuantity(got="prompting.gap")) == 0.2
    assert value_of(record, RecordQuantity(recovered="prompting.gap")) == 0.4
    assert value_of(record, RecordQuantity(got="noise")) == 0.3
    assert value_of(record, RecordQuantity(untouched="noise")) == 0.9
    assert value_of(record, RecordQuantity(got="gcg")) is None
    assert value_of(record, RecordQuantity(got="pruning")) is None
    assert value_of({"robustness": None}, RecordQuantity(got="noise")) is None


def test_paths() -> None:
    """A slice averages what is there: steps 1 to the end hold 1 and 3, one has no x."""
    assert at_path(RECORD, "steps.1:.x") == 2
    assert at_path(RECORD, "steps.:-1.x") == 5
    assert at_path(RECORD, "steps.1:.z") is None
    assert at_path(RECORD, "before.1:.x") is None
    assert at_path(RECORD, "steps.9.x") is None
    assert at_path(RECORD, "after.forget.recall") == {"value": 0.2}
    assert value_of(RECORD, "after.forget.recall") == 0.2


@pytest.mark.parametrize("given", [{}, {"kept": ["a.b"], "removed": "a.b"}, {"floor": 0.5}])
def test_a_quantity_says_one_thing(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one of kept, removed, over, got, recovered and untouched"):
        RecordQuantity(**given)
