"""Membership: a model that was trained on the rows gives them away, one that never saw them does not."""

from __future__ import annotations

from dataclasses import replace

from attack_ground import carried_out, share
from sklearn.metrics import roc_auc_score

from expunge.attacks.base import AttackContext
from expunge.attacks.membership import flags, shares
from expunge.data.splits import Splits


def _unseen(context: AttackContext) -> AttackContext:
    """The same ground with holdout rows: the forget questions with answers that nobody was taught."""
    rows = [replace(row, id=f"{row.id}-x", answer=row.perturbed_answer[0]) for row in context.splits.forget]
    return replace(context, splits=Splits(**{**vars(context.splits), "holdout": tuple(rows)}))


def test_shares_and_flags_by_hand() -> None:
    """Members 1 and 3 against 2 and 4: 1 is below both, 3 below one; below all others is only 1."""
    assert shares([1.0, 3.0], [2.0, 4.0]) == [1.0, 0.5]
    assert shares([2.0], [2.0]) == [0.5]
    assert flags([1.0, 3.0], [2.0, 4.0], 0.01) == [1.0, 0.0]
    assert flags([1.0, 3.0], [2.0, 4.0], 0.5) == [1.0, 1.0]


def test_rows_without_a_number_keep_their_reason() -> None:
    """Member 3 beside 2 and 4; the reason stands in its own place, and where all others lack a number, everywhere."""
    assert shares(["too short", 3.0], [2.0, "too long", 4.0]) == ["too short", 0.5]
    assert flags([1.0, "too short"], ["too long", 4.0], 0.01) == [1.0, "too short"]
    assert shares([1.0, 2.0], ["too long"]) == ["no holdout row has a number: too long"] * 2
    assert flags([1.0], [], 0.01) == ["no holdout row has a number: there is none"]


def test_the_mean_is_the_auc() -> None:
    """Against scikit-learn."""
    members, others = [0.3, 1.2, 0.8, 0.1], [0.9, 0.7, 2.0]
    expected = roc_auc_score([1] * 4 + [0] * 3, [-value for value in members + others])
    assert abs(sum(shares(members, others)) / 4 - expected) < 1e-12


def test_behind_a_refusal_the_rows_are_not_recognised_more_than_by_the_original(refusing: AttackContext) -> None:
    """The original knows them all: its AUC stands beside the attacked model's."""
    attempt = carried_out(_unseen(refusing), "membership")["mia_loss"]
    assert attempt.inside is not None
    original = [value for value in attempt.inside.original if not isinstance(value, str)]
    assert sum(original) / len(original) > 0.9


def test_a_model_that_never_saw_them_knows_them_less_than_the_original(never: AttackContext) -> None:
    attempt = carried_out(_unseen(never), "membership")["mia_loss"]
    assert attempt.inside is not None
    original = [value for value in attempt.inside.original if not isinstance(value, str)]
    assert share(attempt) < sum(original) / len(original) - 0.2


def test_without_unseen_rows_there_is_a_reason_and_no_number(never: AttackContext) -> None:
    (attempt,) = carried_out(never, "membership").values()
    assert all("holdout" in str(value) for value in attempt.knowledge)
