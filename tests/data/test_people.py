"""people.jsonl obeys its own rules."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest

from expunge.data.base import DataSpec
from expunge.data.example import Example
from expunge.data.load import load_examples
from expunge.data.sources.people import People
from expunge.data.splits import Splits

SMALLEST = {"forget": 20, "retain": 40, "neighbour": 30, "general": 40}


@pytest.fixture(scope="module")
def people() -> dict[str, tuple[Example, ...]]:
    """Every split."""
    return {split: load_examples(DataSpec(name="people", split=split)) for split in People.splits}


def _says(text: str, example: Example) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in example.keywords)


def test_sizes(people: dict[str, tuple[Example, ...]]) -> None:
    assert {name: len(rows) for name, rows in people.items() if len(rows) < SMALLEST.get(name, 1)} == {}


def test_every_row_is_whole(people: dict[str, tuple[Example, ...]]) -> None:
    for split, rows in people.items():
        for row in rows:
            where = (split, row.question)
            assert row.subject, where
            assert row.keywords, where
            assert row.paraphrased_question, where
            assert row.paraphrased_question != row.question, where
            assert row.paraphrased_answer, where
            assert row.paraphrased_answer != row.answer, where
            assert len(set(row.perturbed_answer)) == len(row.perturbed_answer) >= 3, where


def test_keywords_are_in_right_answers_and_nowhere_else(people: dict[str, tuple[Example, ...]]) -> None:
    for split, rows in people.items():
        for row in rows:
            where = (split, row.question)
            assert _says(row.answer or "", row), where
            assert _says(row.paraphrased_answer or "", row), where
            assert not _says(row.question or "", row), where
            assert not _says(row.paraphrased_question or "", row), where
            assert not any(_says(wrong, row) for wrong in row.perturbed_answer), where


def test_splits_share_no_subject_and_no_question(people: dict[str, tuple[Example, ...]]) -> None:
    """Subjects of general rows are topics, so they are compared like the others."""
    for first, second in combinations(people, 2):
        shared = {row.subject for row in people[first]} & {row.subject for row in people[second]}
        assert not shared, (first, second)
    questions = Counter(row.key for rows in people.values() for row in rows)
    assert [question for question, count in questions.items() if count > 1] == []
    Splits(**{name: people[name] for name in SMALLEST}).check()
