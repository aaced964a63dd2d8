"""Where an adversary's tokens stand, and what is to follow them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from expunge.attacks._prompt_slots import (
    AFFIRMATION,
    Place,
    answer,
    asked_as_text,
    filler,
    opening,
    own_ids,
    prompt_slot,
    with_text,
)
from expunge.data.encode import Encoder
from expunge.data.example import Example
from expunge.models.base import LanguageModel

ROW = Example("a", question="Where was she born?", answer="She was born in Oslo.", keywords=("Oslo",))
RAW = Example("b", prompt="Her birthplace is", answer="Oslo", keywords=("Oslo",))
DOCUMENT = Example("c", text="The writer was born in Oslo. " * 6)


@pytest.mark.parametrize("place", ["prefix", "suffix"])
@pytest.mark.parametrize("row", [ROW, RAW, DOCUMENT], ids=["question", "raw", "document"])
def test_what_is_typed_stands_in_the_hole_and_nothing_else_changes(
    tiny: LanguageModel, row: Example, place: Place
) -> None:
    encoder = tiny.encoder
    found = prompt_slot(row, encoder, place, 5, ())
    text = filler(5)
    ids = own_ids(row, encoder, place, text, found)
    assert ids is not None
    assert found.prompt(ids) == encoder.asked(with_text(asked_as_text(row, encoder), text, place))
    assert encoder.decode(ids) == text
    question = asked_as_text(row, encoder).asked
    assert question in encoder.decode((*found.before, *found.after))


def test_a_plain_template_has_holes_too(tiny: LanguageModel) -> None:
    encoder = Encoder(tiny.tokenizer, template="plain")
    found = prompt_slot(ROW, encoder, "suffix", 3, ())
    assert encoder.decode(found.before).endswith("born?")
    assert encoder.decode(found.after) == "Answer:"


def test_text_that_merges_with_its_neighbours_is_not_admitted(tiny: LanguageModel) -> None:
    """A blank at the end is taken away with the question's: the typed ids would not be those that were scored."""
    found = prompt_slot(ROW, tiny.encoder, "suffix", 2, ())
    assert own_ids(replace(ROW, question="Another question?"), tiny.encoder, "suffix", filler(2), found) is None


def test_an_opening_ends_before_the_secret(tiny: LanguageModel) -> None:
    encoder = tiny.encoder
    assert encoder.decode(opening(ROW, encoder)) == "She was born in"
    assert encoder.decode(answer(ROW, encoder)) == "She was born in Oslo."
    assert answer(ROW, encoder)[-1] == encoder.end_id
    for row in (replace(ROW, keywords=()), replace(ROW, answer="Oslo it is."), RAW, DOCUMENT):
        assert encoder.decode(opening(row, encoder)) == AFFIRMATION
