"""Membership attacks: one number a row, worked by hand."""

from __future__ import annotations

import math
import zlib

import pytest
from worked import ROW, metric, scored

from expunge.data.example import Example
from expunge.evaluate.base import Absent, Item
from expunge.models.generate import Scored

LOGP = (-5.0, -1.0, -3.0, -2.0, -4.0, -0.5)
"""Five tokens and the end token."""
ITEM = Item(ROW, answer=Scored(LOGP, (True,) * 6, (-1.0,) * 6, (4.0, 1.0, 0.25, 0.0, 9.0, 1.0)))
DOCUMENT = Item(Example("d", text="a b c"), answer=ITEM.answer, continuation="b c")


def test_loss() -> None:
    """(5 + 1 + 3 + 2 + 4 + 0.5) / 6 = 15.5 / 6: the end token counts. High is wanted of forget rows."""
    assert metric("mia_loss").value(ITEM, "forget") == pytest.approx(15.5 / 6)
    assert [metric("mia_loss").better(split) for split in ("forget", "retain")] == ["higher", "lower"]


def test_zlib() -> None:
    """The same loss over the compressed bytes of the stored text; a document's is what follows its prompt."""
    size = len(zlib.compress(b"Shakespeare wrote it."))
    assert metric("mia_zlib").value(ITEM, "forget") == pytest.approx(15.5 / 6 / size)
    assert metric("mia_zlib").value(DOCUMENT, "forget") == pytest.approx(15.5 / 6 / len(zlib.compress(b"b c")))


@pytest.mark.parametrize(
    ("k", "expected"), [(0.4, (5 + 4) / 2), (0.39, 5.0), (0.6, (5 + 4 + 3) / 3), (1, 3.0), (0.01, 5.0)]
)
def test_min_k(k: float, expected: float) -> None:
    """The lowest floor(5 k) of five log-probabilities, at least one; the end token does not count."""
    assert metric("mia_min_k", k=k).value(ITEM, "forget") == pytest.approx(expected)


def test_min_k_of_a_document_counts_its_last_token_unless_openunlearning_does_not() -> None:
    """k = 1: six tokens 15.5 / 6, or 15 / 5."""
    assert metric("mia_min_k", k=1).value(DOCUMENT, "forget") == pytest.approx(15.5 / 6)
    assert metric("mia_min_k", k=1, ou_compat=True).value(DOCUMENT, "forget") == pytest.approx(3)
    assert metric("mia_min_k", k=1, ou_compat=True).value(ITEM, "forget") == pytest.approx(3)


def test_min_k_plus_plus() -> None:
    """z = (log p + 1) / sd: -4 / 2, 0, -2 / 0.5, -1 / 0.001 (variance 0 counts as 1e-6), -3 / 3.

    = -2, 0, -4, -1000, -1. The two lowest of five (k = 0.4) have the mean -502; three, -335.33.
    """
    assert metric("mia_min_k_plus_plus").value(ITEM, "forget") == pytest.approx(502)
    assert metric("mia_min_k_plus_plus", k=0.6).value(ITEM, "forget") == pytest.approx(1006 / 3)
    with pytest.raises(Absent, match="moments"):
        metric("mia_min_k_plus_plus").value(Item(ROW, answer=scored(0.5, 0.5)), "forget")


def test_reference() -> None:
    """Loss log 4 against log 2 of the reference: log 2 more."""
    item = Item(ROW, answer=scored(0.25, 0.25), reference=Item(ROW, answer=scored(0.5, 0.5)))
    assert metric("mia_reference").value(item, "forget") == pytest.approx(math.log(2))
    with pytest.raises(Absent, match="no reference model"):
        metric("mia_reference").value(Item(ROW, answer=scored(0.5)), "forget")


def test_gradient_norm() -> None:
    item = Item(ROW, gradient_norms={"1": 7.0, "2": 3.0, "inf": 2.0})
    assert [metric("mia_gradnorm", norm=norm).value(item, "forget") for norm in ("1", "2", "inf")] == [7, 3, 2]
    assert metric("mia_gradnorm").opt_in


def test_an_answer_of_its_end_token_only_has_no_token_scores() -> None:
    item = Item(ROW, answer=Scored((-1.0,), (True,), (-1.0,), (1.0,)))
    for name in ("mia_min_k", "mia_min_k_plus_plus"):
        with pytest.raises(Absent, match="at least one token"):
            metric(name).value(item, "forget")
