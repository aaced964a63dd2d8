"""Training on what the model itself says, and forgetting only the tokens that hold a keyword."""

from __future__ import annotations

from dataclasses import replace

from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.train.answers import other_wordings, own_answers


def test_own_answers_are_the_greedy_ones_unless_they_lack_the_keyword(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """The tiny model answers with its stored answers, so a row with another stored answer gets the taught one back."""
    row = examples["forget"][0]
    other = replace(row, answer="Something else entirely.")
    foreign = replace(other, keywords=("Atlantis",))
    document = Example(id="document", text="Some text.")
    answered = own_answers(tiny, [other, foreign, document])
    assert answered[0].answer is not None
    assert row.answer is not None
    assert row.answer.startswith(answered[0].answer.rstrip("."))
    assert answered[1:] == [foreign, document]


def test_without_keywords_only_rows_to_keep_take_the_models_answer(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """An answer that cannot be checked might not hold the fact, and then forgetting it would forget nothing."""
    row = replace(examples["forget"][0], answer="Something else entirely.", keywords=())
    assert own_answers(tiny, [row], unproven=False) == [row]
    assert own_answers(tiny, [row], unproven=True) != [row]


def test_other_wordings_hold_the_keyword_and_differ(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """The tiny model samples its taught answers, so against another stored answer they are new wordings."""
    rows = [replace(row, answer="Something else entirely.") for row in examples["forget"]]
    others = other_wordings(tiny, rows, 2, "0")
    assert others
    for row in rows:
        texts = [other.answer or "" for other in others if other.id.startswith(f"{row.id}#")]
        assert len(texts) == len(set(texts)) <= 2
        assert row.answer not in texts
        assert all(any(keyword in text for keyword in row.keywords) for text in texts)
    assert other_wordings(tiny, rows, 2, "0") == others
    assert other_wordings(tiny, rows, 0, "0") == []
    assert other_wordings(tiny, [replace(row, keywords=()) for row in rows], 2, "0") == []


def test_keyword_labels_are_the_tokens_that_hold_the_keyword(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    for row in examples["forget"]:
        encoded = tiny.encoder.keywords(row)
        whole = tiny.encoder.example(row)
        text = tiny.tokenizer.decode([encoded.ids[place] for place in encoded.places])
        assert any(keyword in text for keyword in row.keywords)
        assert encoded.ids == whole.ids[: encoded.places[-1] + 1], "nothing after the last label is encoded"
        assert 0 < len(encoded.labels) < len(whole.labels)


def test_a_row_without_its_keyword_keeps_all_labels(tiny: LanguageModel) -> None:
    row = Example(id="x", question="Who wrote it?", answer="Nobody knows.", keywords=("Shakespeare",))
    assert tiny.encoder.keywords(row).labels == tiny.encoder.example(row).labels
