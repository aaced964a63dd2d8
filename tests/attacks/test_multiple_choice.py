"""A row's answer among wrong ones: of one wording, cut to where they differ; and a value read where others chose."""

from __future__ import annotations

from dataclasses import replace

import torch

from expunge.attacks._multiple_choice import answer_options, choice, choice_states, cross_selected
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.block_outputs import label_states
from expunge.models.tensor_store import StateMemory

ROW = Example("a", question="Where was Ada born?", answer="Ada was born in Oslo.", keywords=("Oslo",))
OTHERS = (
    ROW,
    Example("b", question="What did Bea write?", answer="Bea wrote Dust.", keywords=("Dust",)),
    Example("c", question="Where was Cleo born?", answer="Cleo was born in Riga.", keywords=("Riga", "Rīga")),
    Example("d", question="Where was Dan born?", answer="Dan was born in Oslo.", keywords=("Oslo",)),
    Example("e", question="Where was Eve born?", answer="In Rome Eve was born.", keywords=("Rome",)),
)


def test_stored_wrong_answers_stand_beside_the_paraphrase_that_they_vary() -> None:
    row = replace(
        ROW, paraphrased_answer="Oslo saw her born.", perturbed_answer=("Riga saw her born.", "Rome saw her.")
    )
    assert answer_options(row, OTHERS, 1) == ["Oslo saw her born.", "Riga saw her born."]
    assert answer_options(replace(row, paraphrased_answer=None), OTHERS, 1)[0] == ROW.answer


def test_else_the_facts_of_the_most_similar_questions_are_set_into_its_own_sentence() -> None:
    """The row itself and one with the same fact give nothing; without enough others there are too few."""
    expected = ["Ada was born in Oslo.", "Ada was born in Riga.", "Ada was born in Rome.", "Ada was born in Dust."]
    assert answer_options(ROW, OTHERS, 3) == expected
    assert answer_options(ROW, OTHERS, 2) == expected[:3]
    assert len(answer_options(ROW, OTHERS, 4)) < 5
    assert answer_options(Example("t", text="A document."), OTHERS, 1) == []


def test_rows_without_keywords_get_whole_answers() -> None:
    bare = [replace(row, keywords=()) for row in OTHERS]
    assert answer_options(bare[0], bare, 1) == ["Ada was born in Oslo.", "Cleo was born in Riga."]


def test_only_the_tokens_from_the_first_difference_on_decide(tiny: LanguageModel) -> None:
    answers = ["She was born in Oslo and died.", "She was born in Riga and died."]
    found = choice(ROW, answers, tiny.encoder)
    for text, encoded in zip(("Oslo", "Riga"), found.answers, strict=True):
        *deciding, end = encoded.labels
        assert end == tiny.encoder.end_id
        assert tiny.encoder.decode(deciding).startswith(text[0])
        assert len(deciding) <= 4
        assert tiny.encoder.decode(encoded.ids[encoded.num_prompt : encoded.places[0]]).startswith("She was born in")


def test_an_answer_that_another_begins_with_keeps_one_token(tiny: LanguageModel) -> None:
    found = choice(ROW, ["Oslo", "Oslo and Riga"], tiny.encoder)
    assert [len(one.labels) >= 2 for one in found.answers] == [True, True]


def test_one_pass_gives_what_block_outputs_are(tiny: LanguageModel) -> None:
    one = choice(ROW, ["Oslo it is.", "Riga it is."], tiny.encoder)
    (seen,) = choice_states(tiny, [one])
    for place, encoded in enumerate(one.answers):
        expected = label_states(tiny, [encoded])[0]
        torch.testing.assert_close(list(seen.deciding())[place][0], expected[:, :-1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.read()[place], expected[:, -1], rtol=1e-4, atol=1e-5)
        assert seen.labels[place].tolist() == list(encoded.labels[:-1])
    tiny.state_memory = StateMemory(bound=0)
    (from_disk,) = choice_states(tiny, [one])
    assert tiny.state_memory.used == 0
    assert torch.equal(from_disk.read(), seen.read())
    assert all(map(torch.equal, from_disk.deciding(), seen.deciding()))


def test_each_half_is_read_where_the_other_half_is_best() -> None:
    """Rows 0 and 1 are best at place 1 (two of two), so rows 2 and 3 are read there: 0 and 1.

    Rows 2 and 3 are best at place 0, so rows 0 and 1 are read there: 1 and 0.
    """
    right = torch.tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0]])
    assert cross_selected(right, torch.arange(4)).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert cross_selected(torch.tensor([[0.0], [1.0]]), torch.arange(1)).tolist() == [0.0]
