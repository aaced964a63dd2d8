"""What a run changed, row by row."""

from __future__ import annotations

import pytest

from expunge.evaluate.changes import changes


def test_only_rows_with_a_number_at_both_stages_count() -> None:
    """Of 20 rows the first 6 are lost: -0.3, with an interval below 0; a row that lacks a number is left out."""
    before = {"forget": {"keyword_recall": [1.0] * 20 + ["absent", 1.0], "sample_leak": ["off"] * 22}}
    after = {"forget": {"keyword_recall": [0.0] * 6 + [1.0] * 14 + [0.0, "absent"], "sample_leak": ["off"] * 22}}
    found = changes(before, after, 0)
    assert set(found["forget"]) == {"keyword_recall"}
    change = found["forget"]["keyword_recall"]
    assert (change.n, change.difference) == (20, pytest.approx(-0.3))
    assert -0.55 < change.low < -0.3 < change.high < 0
    assert change.shown


def test_equal_gains_and_losses_show_nothing() -> None:
    """Two rows won and two lost of 20 cancel."""
    before = {"retain": {"keyword_recall": [1.0, 1.0, 0.0, 0.0] + [1.0] * 16}}
    after = {"retain": {"keyword_recall": [0.0, 0.0, 1.0, 1.0] + [1.0] * 16}}
    change = changes(before, after, 0)["retain"]["keyword_recall"]
    assert change.difference == 0
    assert not change.shown


def test_an_aggregate_that_is_no_mean_is_compared_as_itself() -> None:
    """Perplexity is a geometric mean: of 1 and 4 it is 2, of 4 and 16 it is 8."""
    change = changes({"forget": {"perplexity": [1.0, 4.0]}}, {"forget": {"perplexity": [4.0, 16.0]}}, 0)
    assert change["forget"]["perplexity"].difference == pytest.approx(6.0)
