"""Diagnostics that read what a run logged."""

from __future__ import annotations

from pathlib import Path

import pytest
from steering import Rows, context

from expunge.core.errors import UserError
from expunge.core.records import StepLog
from expunge.diagnose.conflict import Conflict
from expunge.diagnose.norms import Norms

STEPS = [
    StepLog(step=1, epoch=0.5, values={"forget_norm": 4.0, "gradient_cosine": -0.5, "gradient_conflict": 1.0}),
    StepLog(step=2, epoch=1.0, values={"forget_norm": 8.0, "gradient_cosine": 0.1, "gradient_conflict": 0.25}),
]


def test_norms_are_told_from_first_to_last(tiny_folder: Path, examples: Rows) -> None:
    found = Norms(Norms.Config()).measure(context(tiny_folder, examples, steps=STEPS))
    assert "forget 4 to 8" in found.sentence
    assert [chart.title for chart in found.charts] == ["Norms of the hidden states"], "nothing else was logged"


def test_conflicts_are_counted(tiny_folder: Path, examples: Rows) -> None:
    """One of two cosines is negative; their mean is -0.2, and 0.625 of the tensors conflict."""
    found = Conflict(Conflict.Config()).measure(context(tiny_folder, examples, steps=STEPS))
    assert "in 1 of 2 steps" in found.sentence
    assert "of the two gradients -0.20" in found.sentence
    assert "tensors in conflict 0.62" in found.sentence


@pytest.mark.parametrize("kind", [Norms, Conflict])
def test_a_run_that_logged_nothing_of_it_is_refused(
    kind: type[Norms] | type[Conflict], tiny_folder: Path, examples: Rows
) -> None:
    plain = [StepLog(step=1, epoch=1.0, values={"forget_loss": 1.0})]
    with pytest.raises(UserError, match="this run logged no such values"):
        kind(kind.Config()).measure(context(tiny_folder, examples, steps=plain))
