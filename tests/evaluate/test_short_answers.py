"""Metrics of short answers, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from expunge.data.example import Example
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.base import Absent, Item
from expunge.evaluate.config import EvaluateConfig, KindsConfig
from expunge.evaluate.metrics.answer_f1 import AnswerF1
from expunge.evaluate.metrics.exact_match import ExactMatch
from expunge.evaluate.metrics.most_likely_answer import MostLikelyAnswer
from expunge.evaluate.score import load_metrics
from expunge.models.generate import Scored


def _said(text: str, answer: str, *keywords: str) -> Item:
    return Item(Example("r", "Q?", answer, keywords=keywords), greedy=text)


@pytest.mark.parametrize(
    ("text", "answer", "keywords", "expected"),
    [
        ("the Blue Danube!", "blue danube", (), 1.0),
        ("blue", "blue danube", (), 2 / 3),
        ("blue blue", "blue danube", (), 0.5),
        ("Danube, of course", "blue danube", ("Danube",), 0.5),
        ("red", "blue danube", ("Danube",), 0.0),
        ("", "blue danube", (), 0.0),
        ("an", "the", (), 0.0),
        ("", "(A)", (), 0.0),
        ("A", "(A)", (), 1.0),
        ("她出生在青州。", "青州", (), 0.5),
    ],
)
def test_answer_f1(text: str, answer: str, keywords: tuple[str, ...], expected: float) -> None:
    """One shared word, one said, two wanted: 2 * 1 / (1 + 2). `blue blue`: shared once, 2 * 1 / (2 + 2).

    `Danube, of course` has 3 words: against the answer 2 * 1 / 5, against the keyword 2 * 1 / 4. An article that is
    all of an answer stays. Six Chinese characters against two of them: 2 * 2 / 8.
    """
    assert AnswerF1(AnswerF1.Config()).value(_said(text, answer, *keywords), "general") == pytest.approx(expected)


def test_the_best_of_several_accepted_answers_counts() -> None:
    """`in the year 1946`: all of the accepted answer's words, and 4 of 4 and 4 shared; of the stored one, 1 of 3."""
    row = Example("r", "When?", "28 April 1946", accepted_answers=("in the year 1946",))
    item = Item(row, greedy="In the year 1946.")
    for name in ("exact_match", "answer_f1", "rouge_1_recall", "rouge_l_recall", "rouge_l_f1"):
        (metric,) = load_metrics(EvaluateConfig(metrics=(name,))).values()
        assert metric.value(item, "general") == 1, name
    assert Labeller(KindsConfig()).kind(item, "forget") == "leak"
    assert Labeller(KindsConfig()).kind(replace(item, example=replace(row, accepted_answers=())), "forget") != "leak"


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("(B)", "", 1),
        ("b", "", 1),
        ("So the answer is (B). That is all.", "", 0),
        ("So the answer is (B). That is all.", "the answer is", 1),
        ("So The Answer Is (B)", "the answer is", 1),
        ("First the answer is (C). No, the answer is (B).", "the answer is", 0),
        ("It is (B).", "the answer is", 0),
        ("B", "the answer is", 1),
    ],
)
def test_exact_match(text: str, after: str, expected: int) -> None:
    """The first conclusion counts; an answer without one is compared whole."""
    metric = ExactMatch(ExactMatch.Config(after=after))
    assert metric.value(_said(text, "(B)"), "general") == expected
    assert metric.value(_said(text, "(X)", "(B)"), "general") == expected


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("So the answer is 3.14.", "3.14", 1),
        ("So the answer is 3.14. Done.", "3,14", 1),
        ("So the answer is 5.", "-5", 0),
        ("So the answer is -5.", "-5", 1),
        ("So the answer is 1,234.", "1234", 1),
        ("", "A", 0),
        ("So the answer is the.", "(A)", 0),
        ("东京。", "东京", 1),
        ("Мир", "«Мир»", 1),
        ("Zoe\u0301", "Zo\u00e9", 1),
        ("the U.S.", "US", 1),
        ("C", "C++", 0),
        ("", "!!", 0),
    ],
)
def test_exact_match_of_numbers_symbols_and_scripts(text: str, answer: str, expected: int) -> None:
    assert ExactMatch(ExactMatch.Config(after="the answer is")).value(_said(text, answer), "general") == expected


def test_most_likely_answer() -> None:
    """Sums without the end token: right -1 - 1 = -2; wrong -3 and -0.5 - 2 = -2.5, then -2, which is as likely."""

    def scored(*logp: float) -> Scored:
        return Scored((*logp, -9.0), (False,) * (len(logp) + 1))

    metric = MostLikelyAnswer(MostLikelyAnswer.Config())
    item = Item(Example("r", "Q?", "A"), answer=scored(-1.0, -1.0), perturbed_answer=(scored(-3.0), scored(-0.5, -2.0)))
    assert metric.value(item, "general") == 1
    tied = Item(item.example, answer=item.answer, perturbed_answer=(*item.perturbed_answer, scored(-2.0)))
    assert metric.value(tied, "general") == 0
    with pytest.raises(Absent, match="perturbed_answer"):
        metric.value(Item(item.example, answer=item.answer), "general")
