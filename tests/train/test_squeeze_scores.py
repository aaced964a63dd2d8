"""The record of the squeezing diagnostic, worked by hand."""

from __future__ import annotations

import pytest

from expunge.core.squeeze_record import Squeeze
from expunge.train.squeeze_scores import Counts, Snapshot, summarise

COUNTS = Counts(prompts=2, left_out=0, thin=0, generated=20, duplicates=0, copies=0)
TOKENS = {name: [0.5, 0.5] for name in ("probability", "neighbour_mass", "top_k_mass", "entropy")}


def look(step: int, target: list[float], high: list[float], end: bool = False, **samples: list[float]) -> Snapshot:
    """Sums are four times the means; the other bands stand still."""
    pairs = {"target": target, "mean/high": high, "sum/high": high}
    pairs |= {f"{ranking}/{band}": [-2.0, -2.0] for ranking in ("mean", "sum") for band in ("mid", "low")}
    levels = {name: [[4 * value, value] for value in values] for name, values in pairs.items()}
    return Snapshot(step=step, epoch=step / 2, end_of_epoch=end, levels=levels, tokens=TOKENS, samples=samples)


@pytest.fixture
def found() -> Squeeze:
    """Two prompts over two epochs; the high band moves by (0.2, 0.6), (0.4, 0.4), (-1, -2) and the target falls."""
    looks = [
        look(0, [-1, -1], [-2, -3]),
        look(1, [-2, -2], [-1.8, -2.4]),
        look(2, [-3, -5], [-1.6, -2.6], end=True),
        look(4, [-6, -6], [-3, -5], end=True, rouge_l=[0.25, 0.75], keyword_recall=[1.0]),
    ]
    return summarise(looks, COUNTS, 0)


def test_scores_by_hand(found: Squeeze) -> None:
    """Mean changes of the high band: 0.4, 0.4, -1.5. Largest 0.4; above its start after 1 of 2 epochs."""
    scores = found.scores["mean"]
    assert scores.squeeze_high.value == pytest.approx(0.4)
    assert scores.persist.value == 0.5
    assert (scores.persist.low, scores.persist.high) == (0.5, 0.5)  # both prompts agree on both epochs
    assert found.scores["sum"].squeeze_high.value == pytest.approx(1.6)


def test_relative_squeeze_by_hand(found: Squeeze) -> None:
    """High less target: 0.4 + 1, 0.4 + 3, -1.5 + 5; the last by prompt -1 + 5 and -2 + 5, so that it spans [3, 4]."""
    assert [check.relative["mean"].value for check in found.checks] == pytest.approx([0, 1.4, 3.4, 3.5])
    last = found.checks[-1].relative["mean"]
    assert (last.low, last.high) == pytest.approx((3, 4))


def test_changes_are_prompt_by_prompt(found: Squeeze) -> None:
    """Both prompts rose by 0.4, from -2 and from -3: the change is certain, the level is not."""
    high = found.checks[2].bands["mean"]["high"]
    assert (high.mean_change.low, high.mean_change.high) == pytest.approx((0.4, 0.4))
    assert (high.mean.low, high.mean.high) == pytest.approx((-2.6, -1.6))
    assert high.total_change.value == pytest.approx(1.6)


def test_samples_are_where_they_were_drawn(found: Squeeze) -> None:
    """One of the two prompts has keywords."""
    assert found.checks[0].rouge_l is None
    assert found.checks[-1].rouge_l is not None
    assert found.checks[-1].rouge_l.value == 0.5
    assert found.checks[-1].keyword_recall is not None
    assert found.checks[-1].keyword_recall.value == 1.0


def test_a_score_that_cannot_be_computed_is_absent_with_its_reason() -> None:
    nothing = summarise([], COUNTS, 0).scores["mean"]
    assert nothing.squeeze_high.value is None
    assert "enough candidates" in (nothing.squeeze_high.reason or "")
    stopped = summarise([look(0, [-1, -1], [-2, -3]), look(1, [-2, -2], [-2, -2])], COUNTS, 0).scores["mean"]
    assert stopped.squeeze_high.value == 0.5
    assert stopped.persist.value is None
    assert "first epoch" in (stopped.persist.reason or "")
