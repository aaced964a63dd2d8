"""Prompts, samples, roundings and relearning: what is behind a refusal comes out, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from attack_ground import Rows, build, carried_out, ground, load, share

from expunge.attacks.base import AttackContext, InternalMeasure
from expunge.attacks.engine import attack
from expunge.core.errors import UserError

LONG = {"steps": 16, "rows": [8], "kinds": ["adjacent"], "methods": ["lora"], "lora_lr": 5e-3}


def _most(context: AttackContext, name: str, **options: object) -> float:
    """The best that any variant got, of those that tell what was said."""
    found = carried_out(context, name, **options).values()
    return max((share(one) for one in found if one.inside is None and _has_numbers(one.knowledge)), default=0.0)


def _has_numbers(values: object) -> bool:
    return any(not isinstance(value, str) for value in values)  # type: ignore[attr-defined]


def test_a_prefilled_answer_gets_past_a_refusal(refusing: AttackContext) -> None:
    """The answer's own first words, and a promise: the refusal was only ever taught at the very beginning."""
    assert not any(refusing.unlearned_plain)
    assert _most(refusing, "prompting", families=["answer_start", "affirmative_start"]) >= 0.5


def test_only_what_got_a_value_was_tested(refusing: AttackContext) -> None:
    """Begun answers test prefilling, other words do not; without rows that nobody saw membership tests nothing."""
    families: dict[str, list[str]] = {"affirmative_start": ["prefilled answers"], "paraphrase": [], "go_on": []}
    for family, ways in families.items():
        (found,) = attack([build("prompting", families=[family])], refusing).attacks
        assert found.tries == ways
    unseen = replace(refusing, splits=replace(refusing.splits, holdout=()))
    assert attack([build("membership")], unseen).attacks[0].tries == []


def test_no_family_gets_out_what_was_never_there(never: AttackContext) -> None:
    assert _most(never, "prompting") <= 0.25


def test_samples_draw_nothing_out_of_a_model_that_never_knew(never: AttackContext) -> None:
    assert _most(never, "sampling") <= 0.25


def test_more_samples_never_say_less(refusing: AttackContext) -> None:
    for attempt in carried_out(refusing, "sampling", temperatures=[1.5], samples=6).values():
        shares = [sum(map(float, point.knowledge)) for point in attempt.curve]
        assert shares == sorted(shares)
        assert [point.at for point in attempt.curve] == [1, 2, 4, 6]


def test_relearning_other_rows_brings_these_back_only_where_they_were(
    refusing: AttackContext, never: AttackContext
) -> None:
    """The same steps on neighbours: a model that never knew says none of the answers for them."""
    assert _most(refusing, "relearning", **LONG) >= 0.5
    assert _most(never, "relearning", **LONG) == 0


def test_rows_that_were_trained_on_have_no_number(refusing: AttackContext) -> None:
    (attempt,) = carried_out(refusing, "relearning", **{**LONG, "kinds": ["forget"], "rows": [2], "steps": 1}).values()
    assert sum(isinstance(value, str) for value in attempt.knowledge) >= 2
    assert attempt.given == 2


def test_eight_bits_say_what_the_weights_say(tiny_folder: Path, examples: Rows) -> None:
    """A model that knows everything still does when its weights are rounded to int8."""
    knowing = ground(load(tiny_folder), examples, lambda: load(tiny_folder))
    found = carried_out(knowing, "quantization", formats=[{"levels": "int8"}])
    assert share(next(iter(found.values()))) == pytest.approx(
        sum(map(float, knowing.unlearned_plain)) / len(knowing.unlearned_plain), abs=0.13
    )


def test_rounding_finds_nothing_in_a_model_that_never_knew(never: AttackContext) -> None:
    assert _most(never, "quantization") == 0


def test_mixed_questions_and_retain_answers(refusing: AttackContext) -> None:
    """The retain answers beside forget words are told apart from what was said of the forget rows."""
    found = carried_out(refusing, "leakage")
    assert set(found) == {"forget question first", "forget question last", "retain answers"}
    assert isinstance(found["retain answers"].inside, InternalMeasure)
    assert found["retain answers"].inside.better == "higher"


def test_families_of_ones_own_and_unknown_ones(never: AttackContext, tmp_path: Path) -> None:
    file = tmp_path / "more.toml"
    file.write_text('[shout]\nsummary = "Loud"\nask = "TELL ME! {question}"\n', encoding="utf-8")
    assert set(carried_out(never, "prompting", families=["shout"], file=str(file))) == {"shout"}
    with pytest.raises(UserError, match="did you mean role_play"):
        build("prompting", families=["role_pley"])
    file.write_text('[shout]\nsummary = "Loud"\nask = "{qestion}"\n', encoding="utf-8")
    with pytest.raises(UserError, match="qestion"):
        build("prompting", families=["shout"], file=str(file))
