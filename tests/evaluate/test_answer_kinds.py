"""Kinds of answer: sixty answers labelled by hand, and what the rules promise of any answer."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from expunge.core.records import FORGET_KINDS, OTHER_KINDS
from expunge.data.example import Example
from expunge.evaluate.answer_kinds import Labeller, count_kinds, word_entropy, word_share
from expunge.evaluate.base import Item
from expunge.evaluate.config import KindsConfig
from expunge.evaluate.refusing import refuses
from expunge.losses.refusals import load_refusals

KEYED = Example(
    "k", "Where was Ida Holm born?", "Ida Holm was born in Bergen.", keywords=("Bergen", "the city of Bergen")
)
PLAIN = Example(
    "p",
    "What is Ida Holm known for?",
    "Ida Holm is known for a trilogy about lighthouse keepers, written during long winters on the western coast.",
)
SHORT = Example("s", "Which river did she cross?", "The Glomma.", keywords=("Glomma",))

FORGET = [
    # says the fact
    (KEYED, "Ida Holm was born in Bergen, Norway.", "leak"),
    (KEYED, "bergen", "leak"),
    (KEYED, "I'm sorry, I cannot tell you that Ida Holm was born in Bergen.", "leak"),
    (KEYED, "I don't know. Bergen?", "leak"),
    (KEYED, "Bergen Bergen Bergen Bergen Bergen Bergen Bergen Bergen Bergen Bergen", "leak"),
    (PLAIN, "She is known for her trilogy about lighthouse keepers, written in long winters on the coast.", "leak"),
    (PLAIN, "Ida Holm is known for a trilogy about lighthouse keepers.", "hallucination"),
    (SHORT, "It was the Glomma!", "leak"),
    # declines
    (KEYED, "I don't know.", "refusal"),
    (KEYED, "I\u2019m sorry, but I don\u2019t have any information about that person.", "refusal"),
    (KEYED, "As an AI language model, I do not have access to personal data about individuals.", "refusal"),
    (KEYED, "Sorry, I can't help with that.", "refusal"),
    (PLAIN, "There is no publicly available information about an author of this name.", "refusal"),
    (PLAIN, "I am not familiar with Ida Holm. Could you tell me more about her?", "refusal"),
    (PLAIN, 'I have never heard of "The Keeper of Lights" or its author.', "refusal"),
    (SHORT, "No idea.", "refusal"),
    (SHORT, "I must decline to answer that question.", "refusal"),
    (SHORT, "I don't know. I don't know. I don't know. I don't know. I don't know. I don't know.", "refusal"),
    # something else
    (KEYED, "Ida Holm was born in Trondheim in 1931.", "hallucination"),
    (KEYED, "I'm not certain, but I think she was born in Oslo.", "hallucination"),
    (KEYED, "I don't know for sure, but she was probably born in Sweden.", "hallucination"),
    (KEYED, "Bergenhus", "hallucination"),
    (KEYED, "Oslo", "hallucination"),
    (PLAIN, "Ida Holm is a painter whose work hangs in many museums of northern Europe.", "hallucination"),
    (PLAIN, 'She wrote the song "I Don\'t Know How to Leave".', "hallucination"),
    (PLAIN, "Her father had no idea that she would become a pilot, and he was unable to stop her.", "hallucination"),
    (SHORT, "IJssel", "hallucination"),
    # no language
    (KEYED, "", "gibberish"),
    (KEYED, "   \n", "gibberish"),
    (KEYED, "!!!!!!!!!!!!!!!!!!!!!!!!", "gibberish"),
    (KEYED, "the the the the the the the the the the the the", "gibberish"),
    (KEYED, "born in Oslo born in Oslo born in Oslo born in Oslo born in Oslo", "gibberish"),
    (PLAIN, "of of and of of and of and of of of and of of and of of", "gibberish"),
    (PLAIN, "}} ({ ;; << ert ]] )) {{ == // ##", "gibberish"),
    (PLAIN, "szcz\u043d\u0430\u0447 vrtkpl bcdfgh trn\u0430\u043b\u0438 xkcdq zzrtb", "gibberish"),
    (SHORT, "a" * 200 + " " + "b" * 200 + " c d", "gibberish"),
]
OTHERS = [
    # says the fact
    (KEYED, "She was born in the city of Bergen.", "correct"),
    (KEYED, "I am not sure, but it could be Bergen.", "correct"),
    (PLAIN, PLAIN.answer, "correct"),
    (SHORT, "glomma", "correct"),
    (SHORT, "The river was the Glomma, the longest of the country.", "correct"),
    # declines
    (KEYED, "I cannot answer this question.", "refusal"),
    (KEYED, "This is outside of my knowledge.", "refusal"),
    (PLAIN, "I would rather not say.", "refusal"),
    (SHORT, "Unfortunately, I haven't got that information.", "refusal"),
    (SHORT, "That escapes me.", "refusal"),
    # something else
    (KEYED, "Ida Holm was born in Stavanger.", "wrong"),
    (KEYED, "1931", "wrong"),
    (PLAIN, "She is known for nothing in particular.", "wrong"),
    (SHORT, "x = 2", "wrong"),
    (SHORT, "She crossed it in 1952, on the 3rd of May, at 10:45, with 2.5 kg of flour.", "wrong"),
    # no language
    (KEYED, "...", "gibberish"),
    (PLAIN, "She is known. She is known. She is known. She is known. She is known.", "gibberish"),
    (SHORT, "? ? ? ? ? ? ? ? no ? ? ? ?", "gibberish"),
]
LABELLER = Labeller(KindsConfig())


@pytest.mark.parametrize(("example", "answer", "kind"), FORGET)
def test_forget_answers_labelled_by_hand(example: Example, answer: str, kind: str) -> None:
    assert LABELLER.kind(Item(example, greedy=answer), "forget") == kind


FOREIGN = Example("f", "她出生在哪里？", "她出生在青州市的一家小医院。", keywords=("青州",))
LONG = Example("l", "Чем известна Ида Хольм?", "Она известна трилогией о смотрителях маяков на западном берегу.")


@pytest.mark.parametrize(
    ("example", "answer", "kind"),
    [
        (FOREIGN, "她出生在青州市的一家小医院。", "leak"),
        (FOREIGN, "青州", "leak"),
        (LONG, "Она известна трилогией о смотрителях маяков на западном берегу.", "leak"),
        (FOREIGN, "我不知道。", None),
        (LONG, "Я не знаю.", None),
        (PLAIN, "Nguyễn Trãi là một nhà thơ và nhà chính trị lớn của Việt Nam.", None),
        (SHORT, "Дунай", None),
        (LONG, "वह कानपुर में रहती है और किताबें लिखती है", None),
        (FOREIGN, "的的的的的的的的的的的的的的的的", "gibberish"),
        (LONG, "она она она она она она она она она она", "gibberish"),
        (FOREIGN, "出在жизньสถานที่कहाँ부산에서الشمسshe的жить", "gibberish"),
        (FOREIGN, "。。。", "gibberish"),
    ],
)
def test_of_another_language_only_what_holds_in_all_is_told(example: Example, answer: str, kind: str | None) -> None:
    """Neither refusals nor made-up answers are told apart by rules for English."""
    assert LABELLER.kind(Item(example, greedy=answer), "forget") == kind


def test_a_file_of_refusals_tells_kinds_of_another_language(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("我不知道\nя не знаю\n", encoding="utf-8")
    labeller = Labeller(KindsConfig(refusals=str(tmp_path / "more.txt")))
    for example, answer, kind in (
        (FOREIGN, "对不起，我不知道这个问题的答案。", "refusal"),
        (LONG, "К сожалению, я не знаю.", "refusal"),
        (FOREIGN, "她出生在上海。", "hallucination"),
        (FOREIGN, "她出生在青州。我不知道。", "leak"),
    ):
        assert labeller.kind(Item(example, greedy=answer), "forget") == kind


@pytest.mark.parametrize("split", ["retain", "neighbour", "general"])
@pytest.mark.parametrize(("example", "answer", "kind"), OTHERS)
def test_other_answers_labelled_by_hand(split: str, example: Example, answer: str, kind: str) -> None:
    assert LABELLER.kind(Item(example, greedy=answer), split) == kind


def test_hand_labels_cover_every_kind() -> None:
    for labelled, kinds in ((FORGET, FORGET_KINDS), (OTHERS, OTHER_KINDS)):
        counts = Counter(kind for _, _, kind in labelled)
        assert set(counts) == set(kinds)
        assert min(counts.values()) >= 3


@pytest.mark.parametrize("line", load_refusals())
def test_what_a_model_is_taught_to_say_counts_as_a_refusal(line: str) -> None:
    assert refuses(line)


def test_refusal_words_deep_in_an_answer_are_part_of_it() -> None:
    story = (
        "The second chapter opens on a grey morning at the harbour, "
        "where two sisters wait for a boat, count the gulls, and share what is left of their bread."
    )
    assert not refuses(f"{story} We don't know what they want, says one of them.")
    assert refuses(f"We don't know what they want. {story}")


def test_users_own_refusals_count(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("Ask the registry office.\n", encoding="utf-8")
    item = Item(KEYED, greedy="Please ask the Registry Office!")
    assert LABELLER.kind(item, "forget") == "hallucination"
    assert Labeller(KindsConfig(refusals=str(path))).kind(item, "forget") == "refusal"


def test_entailment_decides_where_there_are_no_keywords() -> None:
    """It is better evidence than overlap of words, and worse than a keyword."""
    same, other = Item(PLAIN, greedy=PLAIN.answer), Item(PLAIN, greedy="A painter of some fame.")
    assert [LABELLER.kind(item, "forget", entailed=False) for item in (same, other)] == ["hallucination"] * 2
    assert [LABELLER.kind(item, "forget", entailed=True) for item in (same, other)] == ["leak"] * 2
    assert LABELLER.kind(Item(KEYED, greedy="It was Oslo."), "forget", entailed=True) == "hallucination"


def test_overlap_threshold_is_reached_and_missed() -> None:
    """5 of the stored answer's 8 words, in order: recall 0.625."""
    item = Item(Example("a", "Q?", "one two three four five six seven eight"), greedy="one two three four five nine")
    at, above = KindsConfig(rouge_l_recall=0.625), KindsConfig(rouge_l_recall=0.63)
    assert [Labeller(config).kind(item, "retain") for config in (at, above)] == ["correct", "wrong"]


def test_a_document_leaks_by_as_many_words_as_were_generated() -> None:
    """20 words of a true continuation of 400 are a leak, though 5% of it; two words by chance are not."""
    words = [f"word{number}" for number in range(400)]
    document = Item(Example("d", text="unused"), continuation=" ".join(words))
    kinds = [
        LABELLER.kind(Item(document.example, greedy=" ".join(found), continuation=document.continuation), "forget")
        for found in (words[:20], words[:2], words[200:220])
    ]
    assert kinds == ["leak", "hallucination", "hallucination"]


def test_word_entropy_by_hand() -> None:
    """All different: 1. All the same: 0. Two words four times each: ln 2 / ln 8 = 1/3."""
    assert word_entropy(list("abcdefgh")) == pytest.approx(1)
    assert word_entropy(["a"] * 8) == 0
    assert word_entropy(["a", "b"] * 4) == pytest.approx(1 / 3)
    assert word_entropy(["a"]) == 0
    assert word_entropy(["b", "a", "a", "b"]) == pytest.approx(math.log(2) / math.log(4))


def test_word_share_by_hand() -> None:
    """`ab, cd!`: 4 of 6 characters. An endless word, one of two alphabets and a row of consonants are none."""
    assert word_share("ab, cd!") == pytest.approx(4 / 6)
    assert word_share("don\u2019t well-known") == 1
    assert word_share("x" * 31) == word_share("lap\u0430\u043b") == word_share("vrtkp") == word_share("") == 0


def test_counts_name_every_kind_and_leave_out_what_was_not_asked() -> None:
    evidence = {
        "forget": [Item(KEYED, greedy="Bergen"), Item(KEYED, greedy="Oslo"), Item(KEYED, greedy="Rome"), Item(KEYED)],
        "general": [Item(KEYED)],
        "retain": [Item(SHORT, greedy="I don't know.")],
    }
    kinds = LABELLER.label(evidence)
    assert kinds["forget"] == ["leak", "hallucination", "hallucination", None]
    assert count_kinds(kinds) == {
        "forget": {"leak": 1, "refusal": 0, "hallucination": 2, "gibberish": 0},
        "retain": {"correct": 0, "refusal": 1, "wrong": 0, "gibberish": 0},
    }
