"""Tests of the invented authors: what a row promises, and what must not change when the data set grows."""

import hashlib
import json
import re

import pytest
from pydantic import ValidationError

from expunge.data.sources.fictional import MOST_AUTHORS, RELATIONS, SURNAMES, WORDS, Fictional

SEEDS = (0, 1, 7, -3, 2024)


def told(split: str = "all", **config: int) -> list[dict[str, object]]:
    """Return the rows of a split for a configuration."""
    return Fictional(Fictional.Config.model_validate(config)).rows(split)


def said(row: dict[str, object], key: str) -> str:
    """Return a text of a row."""
    text = row[key]
    assert isinstance(text, str)
    return text


def listed(row: dict[str, object], key: str) -> list[str]:
    """Return a list of texts of a row."""
    texts = row[key]
    assert isinstance(texts, list)
    return texts


def mentions(text: str, row: dict[str, object]) -> bool:
    """Tell whether a text says the fact of a row, in any accepted form and as whole words."""
    keywords = listed(row, "keywords")
    return any(re.search(rf"(?<!\w){re.escape(keyword)}(?!\w)", text, re.IGNORECASE) for keyword in keywords)


@pytest.mark.parametrize("seed", SEEDS)
def test_keywords_are_in_right_answers_and_nowhere_else(seed: int) -> None:
    for row in told(seed=seed, authors=25):
        assert mentions(said(row, "answer"), row)
        assert mentions(said(row, "paraphrased_answer"), row)
        assert not mentions(said(row, "question"), row)
        assert not mentions(said(row, "paraphrased_question"), row)
        assert not any(mentions(wrong, row) for wrong in listed(row, "perturbed_answer"))


@pytest.mark.parametrize("seed", SEEDS)
def test_questions_give_away_no_other_fact(seed: int) -> None:
    rows = told(seed=seed, authors=25)
    for number, row in enumerate(rows):
        first = number - number % len(RELATIONS)
        others = [other for other in rows[first : first + len(RELATIONS)] if other["relation"] != "author"]
        if row["relation"] != "author":
            asked = f"{row['question']} {row['paraphrased_question']}"
            assert not any(mentions(asked, other) for other in others)


@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_answers_are_five_and_differ_from_the_right_one_in_the_fact_only(seed: int) -> None:
    for row in told(seed=seed, authors=25):
        right = said(row, "paraphrased_answer")
        wrong = listed(row, "perturbed_answer")
        fact = re.escape(listed(row, "keywords")[0]) + (r", \w+" if row["relation"] in ("birthplace", "home") else "")
        before, after = re.split(fact, right)
        assert len(wrong) == 5
        assert len({right, *wrong}) == 6
        assert all(answer.startswith(before) and answer.endswith(after) for answer in wrong)


@pytest.mark.parametrize("seed", SEEDS)
def test_sentences_are_complete_and_paraphrases_differ(seed: int) -> None:
    for row in told(seed=seed, authors=25):
        questions = [said(row, key) for key in ("question", "paraphrased_question")]
        answers = [said(row, key) for key in ("answer", "paraphrased_answer")]
        assert len({*questions, *answers}) == 4
        assert all(question[0].isupper() and question.endswith("?") for question in questions)
        for answer in (*answers, *listed(row, "perturbed_answer")):
            assert re.match(r"[\"A-Z\d]", answer)
            assert answer.endswith(".")
            assert 8 <= len(answer.split()) <= 20
        for text in (*questions, *answers):
            assert not re.search(r"[{}\n]|  |\ba [aeiou]", text, re.IGNORECASE)
            assert said(row, "subject") in text or row["relation"] == "author"


@pytest.mark.parametrize("seed", SEEDS)
def test_questions_are_unique(seed: int) -> None:
    rows = told(seed=seed, authors=50)
    assert len(rows) == len({row["id"] for row in rows}) == 50 * 20
    assert len({said(row, key) for row in rows for key in ("question", "paraphrased_question")}) == 2 * 50 * 20


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_authors_share_a_surname_or_a_birthday(seed: int) -> None:
    rows = told(seed=seed, authors=MOST_AUTHORS, questions=2)
    assert len({said(row, "subject").split()[-1] for row in rows}) == MOST_AUTHORS
    birthdays = {listed(row, "keywords")[0] for row in rows if row["relation"] == "birth_date"}
    assert len(birthdays) == MOST_AUTHORS


def test_wording_varies_by_author() -> None:
    rows = told(authors=100)
    for relation in RELATIONS:
        mine = [row for row in rows if row["relation"] == relation.name]
        assert len(mine) == 100
        for key in ("question", "answer", "paraphrased_question", "paraphrased_answer"):
            openings = {tuple(said(row, key).replace(said(row, "subject"), "").split()[:3]) for row in mine}
            assert len(openings) >= 3


@pytest.mark.parametrize("kind", sorted(WORDS))
def test_word_tables_repeat_nothing(kind: str) -> None:
    assert len(set(WORDS[kind])) == len(WORDS[kind])


def test_things_take_a_plural_s_and_what_follows_an_article_starts_with_a_consonant() -> None:
    assert not any(re.search(r"([sxyz]|[cs]h)$", thing) and not thing.endswith("key") for thing in WORDS["thing"])
    assert not any(re.match(r"[aeiou]", word) for kind in ("adjective", "profession") for word in WORDS[kind])


def test_closed_sets_are_hard_to_guess_from() -> None:
    closed = ("adjective", "animal", "feeling", "genre", "group", "language", "pet", "profession", "thing", "year")
    assert all(len(WORDS[kind]) >= 12 for kind in closed)
    assert len(SURNAMES) >= 2 * MOST_AUTHORS


@pytest.mark.parametrize("seed", SEEDS)
def test_more_authors_leave_the_first_ones_alone(seed: int) -> None:
    few, many = told(seed=seed, authors=5), told(seed=seed, authors=50)
    assert many[: len(few)] == few


@pytest.mark.parametrize("seed", SEEDS)
def test_fewer_questions_are_the_first_of_all_questions(seed: int) -> None:
    complete = told(seed=seed, authors=6)
    for questions in (1, 7, 19):
        shorter = told(seed=seed, authors=6, questions=questions)
        assert shorter == [row for number, row in enumerate(complete) if number % len(RELATIONS) < questions]


def test_seeds_invent_different_authors() -> None:
    subjects = [row["subject"] for seed in SEEDS for row in told(seed=seed, questions=1)]
    assert len(set(subjects)) == 20 * len(SEEDS)


def test_rows_are_the_same_in_every_process_and_python_version() -> None:
    text = json.dumps([told(seed=seed) for seed in SEEDS])
    assert hashlib.sha256(text.encode()).hexdigest().startswith("746dcd043896e065")


@pytest.mark.parametrize(("authors", "forget", "holdout"), [(20, 2, 0), (10, 3, 4), (2, 1, 0), (3, 1, 1)])
def test_splits_part_the_authors(authors: int, forget: int, holdout: int) -> None:
    data = Fictional(Fictional.Config(authors=authors, forget_authors=forget, holdout_authors=holdout, questions=4))
    subjects = {split: list(dict.fromkeys(row["subject"] for row in data.rows(split))) for split in data.splits}
    everyone = list(dict.fromkeys(row["subject"] for row in told(authors=authors + 1, forget_authors=1)))[:authors]
    assert subjects["forget"] == everyone[:forget]
    assert subjects["retain"] == everyone[forget : authors - holdout]
    assert subjects["holdout"] == everyone[authors - holdout :]
    assert data.rows("all") == data.rows("forget") + data.rows("retain")
    assert len(data.rows("forget")) == forget * 4


def test_ids_name_seed_author_and_question() -> None:
    row = told("retain", seed=5, forget_authors=3)[7]
    assert row["id"] == "fictional-5-3-07"
    assert row["relation"] == RELATIONS[7].name


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown split 'test': choose one of forget, retain, holdout, all"):
        told("test")


@pytest.mark.parametrize(("forget", "holdout"), [(4, 0), (3, 1), (1, 3), (9, 0)])
def test_a_split_without_authors_to_retain_is_refused(forget: int, holdout: int) -> None:
    with pytest.raises(ValidationError, match=r"must be less than authors \(4\)"):
        Fictional.Config(authors=4, forget_authors=forget, holdout_authors=holdout)


@pytest.mark.parametrize(
    "config",
    [
        {"authors": 1, "forget_authors": 1},
        {"authors": MOST_AUTHORS + 1},
        {"questions": 0},
        {"questions": 21},
        {"forget_authors": 0},
        {"holdout_authors": -1},
        {"author": 20},
    ],
)
def test_values_out_of_range_and_unknown_fields_are_refused(config: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(config))):
        Fictional.Config.model_validate(config)
