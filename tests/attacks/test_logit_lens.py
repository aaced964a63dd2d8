"""Logit lens: the answer can be read where a refusal hides it, and is at chance where it never was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from attack_ground import Rows, carried_out, ground, load, share

from expunge.attacks.base import AttackContext
from expunge.core.errors import UserError
from expunge.data.load import examples_from_rows
from expunge.data.sources.fictional import Fictional


def test_a_refusal_hides_nothing_from_the_lens(refusing: AttackContext) -> None:
    assert sum(value == 1 for value in refusing.unlearned_plain) <= 1
    found = carried_out(refusing, "logit_lens")
    assert list(found) == ["block outputs", "attention outputs", "MLP outputs"]
    blocks = found["block outputs"]
    assert share(blocks) >= 0.75
    assert blocks.inside is not None
    assert blocks.inside.chance == 0.25
    assert sum(value for value in blocks.inside.original if not isinstance(value, str)) >= 6
    assert [point.at for point in blocks.curve] == [0, 1, 2]


def test_facts_that_nobody_taught_are_read_at_chance(tiny_folder: Path, examples: Rows) -> None:
    """64 questions about unknown authors: chance 0.25 has a standard error of 0.054."""
    source = Fictional(Fictional.Config(authors=60, questions=4, forget_authors=2))
    known = {row.subject for rows in examples.values() for row in rows}
    rows = [row for row in examples_from_rows(source.rows("retain"), "new") if row.subject not in known][-64:]
    context = ground(load(tiny_folder), examples, rows=rows)
    for attempt in carried_out(context, "logit_lens").values():
        assert abs(share(attempt) - 0.25) < 3 * 0.054
        assert attempt.inside is not None
        assert not attempt.inside.original


def test_rows_without_enough_wrong_answers_say_so(tiny_folder: Path, examples: Rows) -> None:
    lacking = replace(examples["forget"][0], perturbed_answer=(), keywords=("never said",))
    context = ground(load(tiny_folder), examples, rows=[lacking, *examples["forget"][1:4]])
    blocks = carried_out(context, "logit_lens")["block outputs"]
    assert blocks.knowledge[0] == "rows without 3 wrong answers of the same form"
    assert not any(isinstance(value, str) for value in blocks.knowledge[1:])
    with pytest.raises(UserError, match="no attacked row has 200 wrong answers"):
        carried_out(context, "logit_lens", wrong=200)
