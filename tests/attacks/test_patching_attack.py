"""Patching: all is left in the original itself, much behind a refusal, little in a model that never knew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attack_ground import Rows, build, carried_out, ground, load, share

from expunge.attacks.base import AttackContext
from expunge.attacks.patching import others_mean
from expunge.core.errors import UserError


def test_the_mean_of_the_others_by_hand() -> None:
    """One block of width 1: row 0 has states 1, 3; row 1 has 5; row 2 has 9. The others of row 0: (5 + 9) / 2."""
    states = [torch.tensor([1.0, 3.0]), torch.tensor([5.0]), torch.tensor([9.0])]
    found = others_mean([one.view(1, -1, 1) for one in states])
    assert [one.flatten().tolist() for one in found] == [[7.0, 7.0], [pytest.approx(13 / 3)], [3.0]]


def test_the_original_itself_has_lost_nothing(tiny_folder: Path, examples: Rows) -> None:
    context = ground(load(tiny_folder), examples, lambda: load(tiny_folder), rows=examples["forget"][:3])
    (attempt,) = carried_out(context, "patching").values()
    assert attempt.knowledge == pytest.approx([1.0] * 3, abs=1e-3)
    assert [point.at for point in attempt.curve] == [0, 1, 2]


def test_the_retrained_model_has_lost_all_by_its_own_measure(
    tiny_folder: Path, retrained_folder: Path, examples: Rows
) -> None:
    """1 less the unlearning depth score, which is 1 there by definition."""
    context = ground(
        load(retrained_folder),
        examples,
        lambda: load(tiny_folder),
        rows=examples["forget"][:3],
        load_retrained=lambda: load(retrained_folder),
    )
    (attempt,) = carried_out(context, "patching").values()
    assert attempt.knowledge == pytest.approx([0.0] * 3, abs=1e-6)
    assert attempt.inside is not None
    assert "the retrained model's states" in attempt.inside.measure


def test_much_is_left_behind_a_refusal_and_little_where_nothing_was(
    refusing: AttackContext, never: AttackContext
) -> None:
    assert share(carried_out(refusing, "patching")[""]) >= 0.7
    assert share(carried_out(never, "patching")[""]) <= 0.35


def test_a_single_row_has_nothing_to_be_compared_with(refusing: AttackContext) -> None:
    with pytest.raises(UserError, match=r"attacks\.patching: needs two or more rows"):
        build("patching").check(replace(refusing, rows=refusing.rows[:1]))
