"""A keyword that the prompt says already is no sign of knowledge."""

from __future__ import annotations

import pytest

from expunge.data.example import Example, Turn
from expunge.evaluate.answer_kinds import Labeller
from expunge.evaluate.base import Absent, Item
from expunge.evaluate.config import EvaluateConfig, KindsConfig
from expunge.evaluate.keywords import counted_keywords, prompt_text, required_keywords
from expunge.evaluate.score import load_metrics

LIVES = Example("mara", "Where does Mara Velin live?", "Mara Velin lives in Xanten.", keywords=("Xanten", "Mara Velin"))


def value(metric: str, item: Item) -> float:
    """What a metric finds of one row."""
    return load_metrics(EvaluateConfig(metrics=(metric,)))[metric].value(item, "forget")


@pytest.mark.parametrize(("said", "expected"), [("Mara Velin lives in Tarnow.", 0.0), ("In Xanten.", 1.0)])
def test_repeating_the_question_is_no_recall(said: str, expected: float) -> None:
    """The question holds `Mara Velin`, so that only `Xanten` counts: greedy, sampled, and as a kind of answer."""
    item = Item(LIVES, greedy=said, samples=(said, said))
    assert value("keyword_recall", item) == expected
    assert value("sample_leak", item) == expected
    assert Labeller(KindsConfig()).kind(item, "forget") == ("leak" if expected else "hallucination")


def test_each_wording_is_held_against_its_own_prompt() -> None:
    """The paraphrase holds `Xanten` and no name: what counts after it is the name."""
    row = Example(
        "x", LIVES.question, LIVES.answer, paraphrased_question="Who lives in Xanten?", keywords=LIVES.keywords
    )
    assert value("paraphrase_keyword_recall", Item(row, paraphrased_greedy="Somebody in Xanten.")) == 0.0
    assert value("paraphrase_keyword_recall", Item(row, paraphrased_greedy="It is Mara Velin.")) == 1.0


def test_a_row_whose_prompt_holds_every_keyword_has_no_recall() -> None:
    """Absent with its reason; its kind is then told by word overlap, as that of a row without keywords."""
    row = Example("y", "Does Mara Velin live in Xanten?", "Yes, in Xanten.", keywords=("Xanten",))
    with pytest.raises(Absent, match="all occur in their own question"):
        value("keyword_recall", Item(row, greedy="Mara Velin lives in Xanten."))
    labeller = Labeller(KindsConfig())
    assert labeller.kind(Item(row, greedy="Yes, in Xanten."), "forget") == "leak"
    assert labeller.kind(Item(row, greedy="I have never heard of Xanten before."), "forget") != "leak"


def test_all_that_is_read_before_the_answer_counts_as_prompt() -> None:
    """System prompt, earlier turns and the start of the answer; of a document what comes before the continuation."""
    row = Example(
        "z",
        "And where?",
        "In Xanten.",
        keywords=("Tarnow", "heron", "Lublin", "Xanten"),
        system="You are from Tarnow.",
        history=(Turn("user", "What pet?"), Turn("assistant", "A heron.")),
        answer_start="Not in Lublin but",
    )
    assert counted_keywords(row, prompt_text(row)) == ("Xanten",)
    document = Example("d", text="Mara Velin lives in Xanten.", keywords=("Xanten", "Mara Velin"))
    assert required_keywords(Item(document, continuation="lives in Xanten.")) == ("Xanten",)
    assert required_keywords(Item(document)) == document.keywords
