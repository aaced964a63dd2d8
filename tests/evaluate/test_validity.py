"""Warnings about what scores cannot mean: each against a case worked by hand, and none on the shipped data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from expunge.core.errors import UserError
from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.data.load import load_examples
from expunge.data.splits import Splits
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.base import Item
from expunge.evaluate.config import EvaluateConfig, Role
from expunge.evaluate.measure import Measured
from expunge.evaluate.score import item_values, load_metrics, score
from expunge.evaluate.sets import EvalSet, Sets, sets_of
from expunge.evaluate.validity import (
    answer_warnings,
    check_keywords,
    doubts,
    known_warnings,
    plain_warnings,
    row_warnings,
)

CONFIG = EvaluateConfig(metrics=("keyword_recall", "sample_leak", "rouge_l_recall"), max_new_tokens=64)


def fact(number: int, **more: Any) -> Example:
    """A row of its own: question, answer and keyword hold the number."""
    usual = {
        "question": f"Where does person {number} live?",
        "answer": f"In town{number}.",
        "keywords": (f"town{number}",),
    }
    return Example(f"row-{number}", **{**usual, **more})


def sets(rows: list[Example], role: Role = "forget", config: EvaluateConfig = CONFIG) -> Sets:
    """One set, named by its role."""
    return {role: EvalSet(tuple(rows), role, config)}


def measured(items: list[Item], role: Role = "forget") -> Measured:
    """What a model is known to have said."""
    metrics = load_metrics(CONFIG)
    evidence, roles = {role: items}, {role: role}
    values = item_values(evidence, metrics)
    return Measured(evidence, values, Labeller(CONFIG.kinds).label(evidence), score(values, metrics, 0), {}, roles)


def said(rows: list[Example], known: int, ended: bool = True) -> list[Item]:
    """The first rows answered rightly, the others with nothing."""
    return [
        Item(row, greedy=row.answer if place < known else "I see.", greedy_ended=ended)
        for place, row in enumerate(rows)
    ]


ROWS = [fact(number) for number in range(20)]


@pytest.mark.parametrize("name", ["people", "fictional"])
def test_shipped_rows_raise_no_alarm(name: str) -> None:
    """Every split of the demo and of the invented authors."""
    splits = {split: load_examples(DataSpec(name=name, split=split)) for split in ("forget", "retain")}
    if name == "people":
        more = ("neighbour", "general", "dev_forget", "dev_neighbour", "dev_general")
        splits |= {split: load_examples(DataSpec(name=name, split=split)) for split in more}
    found: dict[str, EvalSet] = {
        split: EvalSet(rows, "forget" if "forget" in split else "retain", CONFIG) for split, rows in splits.items()
    }
    check_keywords(found)
    assert row_warnings(found) == []


def test_answers_without_their_keyword_are_counted_and_a_whole_set_is_refused() -> None:
    """Two of 20 have a keyword that their answer does not hold; an accepted answer or an inflection may hold it."""
    wrong = [replace(row, keywords=("Zebra",)) for row in ROWS]
    found = row_warnings(sets([*ROWS[:18], *wrong[18:]]))
    assert len(found) == 1
    assert found[0].startswith("forget: 2 of 20 rows with keywords (first: 'row-18'): the stored answer holds none")
    assert row_warnings(sets([*ROWS[:19], replace(wrong[19], accepted_answers=("A zebra!",))])) == []
    check_keywords(sets([*ROWS[:1], *wrong[1:]]))
    check_keywords(sets(wrong, "retain"))
    with pytest.raises(UserError, match=r"data.forget: no answer holds .* \(first row: 'row-0'\)"):
        check_keywords(sets(wrong))


def test_only_a_keyword_that_counts_makes_an_answer_right() -> None:
    """The answer holds the name, which the question says too, and not the town."""
    row = fact(1, question="Where does Mara live?", answer="Mara lives in Tarnow.", keywords=("Xanten", "Mara"))
    with pytest.raises(UserError, match="no answer holds"):
        check_keywords(sets([row]))


def test_keywords_in_the_prompt_are_told_with_how_many_rows_lose_their_score() -> None:
    """One row keeps another keyword, one has none left; a paraphrase and a system prompt are looked at too."""
    partly = fact(1, keywords=("town1", "person 1"))
    wholly = fact(2, question="Is town2 the home of person 2?")
    first = row_warnings(sets([*ROWS[5:], partly, wholly]))
    assert len(first) == 1
    assert "2 of 17 rows with keywords (first: 'row-1')" in first[0]
    assert first[0].endswith("such keywords are not counted. 1 row has no other keyword, and no keyword score.")
    reworded = row_warnings(sets([*ROWS[5:], fact(3, paraphrased_question="Who is at home in town3?")]))
    assert len(reworded) == 1
    assert "1 of 1 rows with a paraphrased question (first: 'row-3')" in reworded[0]
    system = row_warnings(sets(ROWS), "Person 4 comes from town4.")
    assert len(system) == 1
    assert "1 of 20 rows with keywords (first: 'row-4'): model.system_prompt holds a keyword" in system[0]


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        (fact(1, keywords=(), question="Is it Tarnow?", answer="Tarnow"), True),
        (fact(1, keywords=(), answer="in the town of Tarnow", answer_start="It is in the town of"), True),
        (fact(1, keywords=(), answer="in the town of Tarnow", answer_start="This person lives"), False),
        (fact(1, keywords=(), question="Is it A or B?", answer="B"), False),
        (fact(1, keywords=(), question="Is it red or blue?", answer="blue", options=("red", "blue")), False),
        (fact(1, answer_start="In town1"), True),
    ],
)
def test_a_prompt_that_holds_the_answer_is_told(row: Example, warned: bool) -> None:
    """A question, or the start that is put into the model's mouth; letters and options are meant to be there."""
    assert bool(row_warnings(sets([*ROWS[5:], row]))) is warned


def test_repeated_questions_and_few_rows_are_told() -> None:
    """Case and spaces are no difference; another history is; four rows are few."""
    again = fact(0, question="where does  PERSON 0 live?")
    found = row_warnings(sets([*ROWS, replace(again, id="again")]))
    assert len(found) == 1
    assert "1 of 21 rows (first: 'again'): the same question as an earlier row. Only 20 are distinct" in found[0]
    assert row_warnings(sets([*ROWS, replace(again, system="You are old.")])) == []
    assert row_warnings(sets(ROWS[:4])) == ["forget: only 4 rows; a score over so few says little."]


def test_a_paraphrase_of_a_forget_question_in_another_set_is_told() -> None:
    """In either direction; `Splits.check` refuses the question itself."""
    home = fact(30, paraphrased_question="Home of thirty?")
    kept = [*ROWS[:6], replace(fact(31), question="home of  Thirty?")]
    splits = Splits(forget=(*ROWS[6:], home), retain=tuple(kept))
    splits.check()
    (found,) = row_warnings(sets_of(splits, CONFIG))
    assert found.startswith("retain: 1 of 7 rows (first: 'row-31'): in another wording the question")
    turned = Splits(forget=tuple(kept), retain=(*ROWS[6:], home))
    assert len(row_warnings(sets_of(turned, CONFIG))) == 1


def test_cut_answers_are_counted_per_set() -> None:
    """Two of 20 are a tenth, and no alarm; three are one. Documents and raw prompts need no end."""
    few = [*said(ROWS[:2], 0, ended=False), *said(ROWS[2:], 20)]
    assert answer_warnings(sets(ROWS), measured(few)) == []
    more = [*said(ROWS[:3], 0, ended=False), *said(ROWS[3:], 20)]
    (found,) = answer_warnings(sets(ROWS), measured(more), "before the run, ")
    assert found.startswith(
        "Before the run, 3 of 20 greedy answers (forget) met the limit of evaluate.max_new_tokens = 64"
    )
    early = [replace(item, greedy_ids=(5,)) for item in more]
    assert "met the limit of the model's own table of positions" in answer_warnings(sets(ROWS), measured(early))[0]
    sampled = [Item(row, samples=("a", "b"), samples_ended=(False, True)) for row in ROWS]
    assert "20 of 40 sampled answers (forget)" in answer_warnings(sets(ROWS), measured(sampled))[0]
    thinking = [Item(row, greedy=None, greedy_ended=False, reasoning="So ...") for row in ROWS]
    assert "met the limit of evaluate.max_reasoning_tokens = 1024" in answer_warnings(sets(ROWS), measured(thinking))[0]
    raw = [Example(f"raw-{place}", prompt="It is", answer="so") for place in range(9)]
    documents = [Example(f"text-{place}", text="It is so") for place in range(9)]
    for rows in (raw, documents):
        assert answer_warnings(sets(rows), measured(said(rows, 0, ended=False))) == []


def test_leaks_in_another_form_and_kinds_that_cannot_be_told_are_counted() -> None:
    """Of three leaks two are forms of the keyword; one answer is in a language of which no refusals are known."""
    row = fact(0, answer="William Shakespeare.", keywords=("Shakespeare",))
    texts = ("Shakespeare", "the Shakespearean stage", "Shakespeares", "Marlowe", "Его звали Марло.")
    items = [Item(replace(row, id=f"r{place}"), greedy=text) for place, text in enumerate(texts)]
    found = " ".join(answer_warnings(sets([item.example for item in items]), measured(items), "after the run, "))
    assert "2 of the 3 leaks among greedy answers (forget)" in found
    assert "first row: 'r1'" in found
    assert "kind of 1 of 5 greedy answers (forget) is not told" in found
    strict = [replace(item, match="word") for item in items[:4]]
    assert answer_warnings(sets([item.example for item in strict]), measured(strict)) == []


def test_samples_that_never_differ_are_told_only_below_temperature_1() -> None:
    """At temperature 1 they are what the model is sure of; below, the cold made them so."""
    items = [Item(row, samples=("same", "same"), samples_ended=(True, True)) for row in ROWS]
    assert answer_warnings(sets(ROWS), measured(items)) == []
    cold = sets(ROWS, config=CONFIG.model_copy(update={"temperature": 0.1}))
    (found,) = answer_warnings(cold, measured(items))
    assert found.startswith("All samples were the same text for 20 of 20 forget rows at evaluate.temperature 0.1")
    assert answer_warnings(cold, measured([replace(one, samples=("a", "b")) for one in items])) == []


def test_what_the_model_hardly_knew_before_is_told_and_doubted() -> None:
    """10 of 20 known: nothing. 9: a warning, and too few to rule out a leak. A sampled answer counts as known."""
    assert known_warnings(measured(said(ROWS, 10))) == []
    assert doubts(sets(ROWS), measured(said(ROWS, 10))) == []
    nine = measured(said(ROWS, 9))
    (found,) = known_warnings(nine)
    assert found.startswith("Before the run the model said the fact of only 9 of 20 forget rows")
    assert doubts(sets(ROWS), nine) == ["before the run the model said the fact of only 9 of 20 forget rows"]
    sampled = [replace(item, samples=(item.example.answer or "",)) for item in said(ROWS, 9)]
    assert known_warnings(measured(sampled)) == []
    many = [fact(number) for number in range(100)]
    assert known_warnings(measured(said(many, 30)))
    assert doubts(sets(many), measured(said(many, 30))) == []
    assert doubts(sets(many), measured(said(many, 24)))


def test_what_should_stay_may_be_known_by_fewer() -> None:
    """A quarter of the kept rows is enough to see harm; without keywords the word overlap decides."""
    assert known_warnings(measured(said(ROWS, 5), "retain")) == []
    (found,) = known_warnings(measured(said(ROWS, 4), "retain"))
    assert "only 4 of 20 retain rows: what it kept of them tells little" in found
    plain = [replace(row, keywords=(), answer=f"one two three four {row.id}") for row in ROWS]
    assert known_warnings(measured(said(plain, 20))) == []
    (found,) = known_warnings(measured(said(plain, 1)))
    assert "hardly knew the forget rows (ROUGE-L recall 0.05)" in found


def test_attacks_tell_what_the_original_never_said() -> None:
    """Rows that could not be asked do not count: 1 of 3."""
    assert plain_warnings([1.0, 0.0, "no answer"]) == []
    (found,) = plain_warnings([1.0, 0.0, 0.0, "no answer"])
    assert "only 1 of 3 rows" in found


def test_cut_answers_and_repeated_rows_make_forgetting_doubtful() -> None:
    """Ten of 20 answers cut before the run; eleven distinct rows of 20."""
    half = [*said(ROWS[:10], 10, ended=False), *said(ROWS[10:], 10)]
    assert doubts(sets(ROWS), measured(half)) == [
        "10 of 20 answers to forget rows met the limit of tokens before the run already"
    ]
    repeated = [*ROWS[:11], *(replace(ROWS[0], id=f"again-{place}") for place in range(9))]
    assert doubts(sets(repeated), measured(said(repeated, 20))) == [
        "only 11 of 20 forget rows are distinct, too few to rule out a leak"
    ]
