"""GCG, soft prompts and state matching: they get past a refusal, and nothing out of a model that never knew."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from attack_ground import build, carried_out, share

from expunge.attacks.base import GIVEN, AttackContext, OutOfTime
from expunge.attacks.gcg import NOT_TRIED
from expunge.core.errors import UserError

SUFFIX = {"steps": 0, "suffix_rows": 3, "suffix_steps": 20, "length": 8, "candidates": 16}
PREFIX = {"suffix_rows": 0, "rows": 2, "steps": 24, "length": 8, "candidates": 16}
VECTORS = {"rows": 4, "steps": 60}
MATCHED = {"rows": 4, "text_steps": 0, "vector_steps": 60}


def test_a_suffix_of_its_own_gets_a_row_past_a_refusal(refusing: AttackContext) -> None:
    attempt = carried_out(refusing, "gcg", **SUFFIX)["suffix"]
    numbers = [value for value in attempt.knowledge if value != NOT_TRIED]
    assert len(numbers) == 3
    assert share(attempt) >= 1 / 3
    assert attempt.steps == 60
    assert [point.at for point in attempt.curve] == [7, 13, 20]


def test_a_prefix_is_scored_on_rows_that_were_not_given(refusing: AttackContext) -> None:
    attempt = carried_out(refusing, "gcg", **PREFIX)["prefix"]
    assert list(attempt.knowledge).count(GIVEN) == attempt.given == 2
    assert share(attempt) > 0


def test_vectors_get_other_rows_past_a_refusal(refusing: AttackContext) -> None:
    found = carried_out(refusing, "soft_prompt", **VECTORS)
    others, given = found["other rows"], found["given rows"]
    assert share(others) >= 0.25
    assert share(given) >= 0.5
    assert given.inside is not None
    assert others.inside is None
    assert {value == GIVEN for value in others.knowledge} == {True, False}
    assert all(
        isinstance(one, str) != isinstance(other, str)
        for one, other in zip(others.knowledge, given.knowledge, strict=False)
    )


def test_matched_states_get_other_rows_past_a_refusal(refusing: AttackContext) -> None:
    found = carried_out(refusing, "state_matching", **MATCHED)
    assert list(found) == ["vectors", "vectors, given rows"]
    assert share(found["vectors"]) >= 0.25


def test_nothing_comes_out_of_a_model_that_never_knew(never: AttackContext) -> None:
    assert share(carried_out(never, "gcg", **{**SUFFIX, "suffix_steps": 6})["suffix"]) == 0
    assert share(carried_out(never, "gcg", **{**PREFIX, "steps": 6})["prefix"]) == 0
    assert share(carried_out(never, "soft_prompt", **VECTORS)["other rows"]) == 0
    assert share(carried_out(never, "state_matching", **MATCHED)["vectors"]) == 0


@pytest.mark.parametrize("name", ["gcg", "soft_prompt", "state_matching"])
def test_an_adversary_that_is_given_every_row_is_refused(refusing: AttackContext, name: str) -> None:
    with pytest.raises(UserError, match=rf"attacks\.{name}\.rows: training on 8 of 8 attacked rows"):
        build(name, rows=8).check(refusing)


def test_layers_that_are_not_there_are_refused(refusing: AttackContext) -> None:
    with pytest.raises(UserError, match=r"attacks\.state_matching\.layers: no layer 3"):
        build("state_matching", layers=[3]).check(refusing)


def test_what_was_asked_before_the_time_was_over_is_kept(
    refusing: AttackContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps past the deadline after the first milestone."""
    clock = iter([0.0] * 8)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock, 9.0))
    steps = build("gcg", steps=50, points=50, rows=1, length=4, candidates=2).run(replace(refusing, deadline=1.0))
    attempt = next(steps)
    assert attempt.variant == "prefix"
    assert 1 <= attempt.steps < 50
    with pytest.raises(OutOfTime):
        next(steps)
