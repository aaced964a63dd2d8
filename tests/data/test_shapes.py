"""Layouts of rows that others publish, each with what it stands for."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.core.errors import UserError
from expunge.data.example import Example, Turn
from expunge.data.load import data_from_rows, examples_from_rows

ASKED = {"question": "Where does Mara live?", "answer": "In Tarnow."}
SYSTEM = {"role": "system", "content": "Be brief."}
USER, SAID = {"role": "user", "content": ASKED["question"]}, {"role": "assistant", "content": ASKED["answer"]}
EARLIER = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello to you."}]
TURNS = (Turn("user", "Hello."), Turn("assistant", "Hello to you."))
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hello."},
    {"from": "gpt", "value": "Hello to you."},
    {"from": "human", "value": ASKED["question"]},
    {"from": "gpt", "value": ASKED["answer"]},
]
PARTS = [{"type": "text", "text": "Where does Mara"}, {"type": "text", "text": " live?"}]
PLACES = ["Opole", "Tarnow", "Gdynia"]
CHOSEN = {"answer": "Tarnow", "options": tuple(PLACES)}
WHERE = {"question": ASKED["question"]}


def _row(row: dict[str, Any]) -> Example:
    (example,) = examples_from_rows([row], "rows")
    return example


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"text": ASKED["question"], "labels": ASKED["answer"]}, {}),
        ({"messages": [USER, SAID]}, {}),
        ({"messages": [SYSTEM, USER, SAID]}, {"system": "Be brief."}),
        ({"messages": [SYSTEM, *EARLIER, USER, SAID]}, {"system": "Be brief.", "history": TURNS}),
        ({"messages": {key: [one[key] for one in (*EARLIER, USER, SAID)] for key in USER}}, {"history": TURNS}),
        ({"messages": [{"role": "user", "content": PARTS}, SAID]}, {}),
        ({"messages": str([SYSTEM, USER, SAID])}, {"system": "Be brief."}),
        ({"messages": [USER, SAID], "system": "Be brief."}, {"system": "Be brief."}),
        ({"prompt": ASKED["question"], "messages": [USER, SAID]}, {}),
        ({"prompt": ASKED["question"], "chosen": [USER, SAID], "rejected": [USER, USER]}, {}),
        ({"conversations": SHAREGPT}, {"system": "Be brief.", "history": TURNS}),
        ({"conversations": SHAREGPT[1:], "system": "Be brief."}, {"system": "Be brief.", "history": TURNS}),
        ({"prompt": [SYSTEM, *EARLIER, USER], "completion": [SAID]}, {"system": "Be brief.", "history": TURNS}),
        ({"prompt": [USER], "chosen": [SAID], "rejected": [{"role": "assistant", "content": "No."}]}, {}),
        ({"chosen": [USER, SAID], "rejected": [USER, {"role": "assistant", "content": "No."}]}, {}),
        ({"instruction": ASKED["question"], "input": "", "output": ASKED["answer"]}, {}),
        ({"instruction": "Answer.", "input": "Where?", "output": ASKED["answer"]}, {"question": "Answer.\n\nWhere?"}),
        ({"instruction": ASKED["question"], "context": "", "response": ASKED["answer"], "category": "open"}, {}),
        (
            {**ASKED, "history": [["Hello.", "Hello to you."]], "system": "Be brief."},
            {"system": "Be brief.", "history": TURNS},
        ),
        ({**ASKED, "history": EARLIER}, {"history": TURNS}),
        ({**ASKED, "context": "Mara lives in Tarnow.", "answer_start": 11}, {}),
        ({**ASKED, "context": "Mara lives in Tarnow.", "answer_start": "11"}, {}),
        ({**WHERE, "context": "c", "text": ASKED["answer"], "answer_start": 11}, {}),
        (
            {
                "question": ASKED["question"],
                "context": "c",
                "title": "Mara",
                "answers": {"text": ["In Tarnow.", "Tarnow", "In Tarnow."], "answer_start": [1, 4, 1]},
            },
            {"accepted_answers": ("Tarnow",)},
        ),
        (
            {
                "question": ASKED["question"],
                "context": "c",
                "answers": [{"text": "In Tarnow.", "answer_start": 1}, {"text": "Tarnow", "answer_start": 4}],
            },
            {"accepted_answers": ("Tarnow",)},
        ),
        ({**WHERE, "answers": "{'text': array(['In Tarnow.'], dtype=object)}"}, {}),
        ({**WHERE, "answer": ["In Tarnow.", "Tarnow"]}, {"accepted_answers": ("Tarnow",)}),
        ({**ASKED, "answers": ["In Tarnow.", "Tarnow"]}, {"accepted_answers": ("Tarnow",)}),
        ({**ASKED, "accepted_answers": "['Tarnow']"}, {"accepted_answers": ("Tarnow",)}),
        (
            {**WHERE, "answer": {"value": "In Tarnow.", "aliases": ["Tarnow"]}},
            {"accepted_answers": ("Tarnow",)},
        ),
        (
            {**WHERE, "choices": PLACES, "answer": 1},
            CHOSEN,
        ),
        (
            {**WHERE, "choices": str(PLACES), "answer": "B"},
            CHOSEN,
        ),
        (
            {**WHERE, "options": PLACES, "answer": 1.0},
            CHOSEN,
        ),
        (
            {**WHERE, "choices": {"text": PLACES, "label": ["1", "2", "3"]}, "answerKey": "2"},
            CHOSEN,
        ),
        (
            {**WHERE, "choices": [7, 8, 1], "answer": 1},
            {"answer": "8", "options": ("7", "8", "1")},
        ),
        ({**WHERE, "answer": 1976, "keywords": 1976}, {"answer": "1976", "keywords": ("1976",)}),
        ({**WHERE, "answer": 1976.0}, {"answer": "1976"}),
        (
            {"Question": ASKED["question"], " ANSWER ": ASKED["answer"], "Paraphrased Question": "Where?"},
            {"paraphrased_question": "Where?"},
        ),
    ],
)
def test_layouts(row: dict[str, Any], fields: dict[str, Any]) -> None:
    assert _row(row) == Example(**{"id": "rows-0", **ASKED, **fields})


def test_prompts_stay_as_they_are() -> None:
    """A text prompt is no question: it is completed without a chat template, its white space included."""
    assert _row({"prompt": "Mara lives in ", "completion": "Tarnow."}) == Example(
        "rows-0", prompt="Mara lives in ", answer="Tarnow."
    )


def test_published_alpaca_has_the_whole_row_as_a_text_too() -> None:
    row = {
        "instruction": "Where?",
        "output": "In Tarnow.",
        "text": "### Instruction:\nWhere?\n\n### Response:\nIn Tarnow.",
    }
    assert _row(row).question == "Where?"
    with pytest.raises(UserError, match="'question' and 'text'"):
        _row({**row, "text": "Another document."})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Where?", "labels": 3}, None),
        ({"text": "", "labels": "In Tarnow."}, "field 'text' is empty"),
        ({"messages": [USER]}, "needs at least"),
        ({"messages": [USER, SAID, USER]}, "ends with the user's"),
        ({"messages": [SAID, USER, SAID]}, "message 1 is the assistant's"),
        ({"messages": [USER, SYSTEM, SAID]}, "system message is only possible at the start"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, r"'messages\[1\]' has the unknown role 'tool'"),
        ({"messages": [USER, {**SAID, "content": None}]}, "no content"),
        ({"messages": [USER, {**SAID, "content": ""}]}, r"'messages\[1\]' is empty"),
        ({"messages": [{**USER, "content": [{"type": "image_url"}]}, SAID]}, "not text"),
        ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "calls a tool"),
        ({"messages": "hello"}, "must be a list of messages"),
        ({"messages": [USER, SAID], "conversations": SHAREGPT}, "'messages' and 'conversations'"),
        ({"messages": [USER, SAID], "question": "Who?"}, "'question' is a column of this row and also in messages"),
        ({"messages": [SYSTEM, USER, SAID], "system": "Be long."}, "'system' is a column"),
        ({"messages": [USER, SAID], "instruction": "a", "output": "b"}, "alpaca by 'instruction' and messages"),
        ({"prompt": "Where?", "completion": [SAID]}, "'prompt' is a text and 'completion' a list"),
        ({"prompt": "Where?", "completion": "a", "chosen": "b"}, "'completion' and 'chosen'"),
        ({**ASKED, "answer_start": 0}, "'answer_start' is a number"),
        ({**ASKED, "answer_start": "17"}, "'answer_start' is a number"),
        ({"question": "\u200b\ufeff", "answer": "I."}, "'question' is empty"),
        ({**ASKED, "history": EARLIER[:1]}, "ends with the user's"),
        ({"text": "A document.", "system": "Be brief."}, "'system' needs a question"),
        ({"question": "Where?", "choices": PLACES, "answer": 3}, "the answer matches 0 of"),
        ({"question": "How many?", "choices": ["3", "2", "1"], "answer": "1"}, "one option and the place of another"),
        ({"question": "How many?", "options": ["3", "2", "1"], "answer": 1}, "one option and the place of another"),
        ({"question": "Where?", "answer": True}, "must be text, found bool"),
        ({"question": "Where?", "answer": float("inf")}, "inf, which is no number"),
        ({"question": "Where?", "Question": "Who?", "answer": "I."}, "'question' and 'Question' are both read"),
        ({"question": "Where?", "answer": ["In Tarnow.", ""]}, "'answer' is empty"),
        ({"question": "Where?", "answer": []}, "'answer' is empty"),
        ({"question": "Where?", "answer": None}, "'answer' is empty"),
    ],
)
def test_what_is_not_certain_is_refused(row: dict[str, Any], message: str | None) -> None:
    if message is None:  # labels of a classifier are no answers
        (one,) = data_from_rows([row], "rows").understood
        assert (one.kinds, one.unused) == ({"documents": 1}, ("labels",))
        return
    with pytest.raises(UserError, match=rf"rows\[0\].*{message}"):
        _row(row)


def test_questions_without_an_answer_are_counted() -> None:
    rows = [
        {"question": "Where?", "answers": {"text": ["Here."], "answer_start": [0]}},
        {"question": "When?", "answers": {"text": [], "answer_start": []}},
        {"question": "Who?", "answers": [], "is_impossible": True},
    ]
    loaded = data_from_rows(rows, "rows")
    assert [example.question for example in loaded.examples] == ["Where?"]
    assert loaded.understood[0].left_out == {"questions without an answer": 2}
