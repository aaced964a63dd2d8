"""Causal tracing: which facts are traced, and which blocks are chosen by them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.errors import UserError
from expunge.data.encode import Encoder
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.localize._blocks import best_window
from expunge.localize._facts import Fact, find_fact, subject_of
from expunge.localize.base import Selection
from expunge.localize.causal_tracing import CausalTracing
from expunge.models.base import LanguageModel

Examples = dict[str, tuple[Example, ...]]


def trace(model: LanguageModel, rows: tuple[Example, ...], seed: int = 0, **options: Any) -> Selection:
    config = CausalTracing.Config(**{"draws": 2, "window": 1, **options})
    return CausalTracing(config).select(model, Splits(rows, ()), seed)


def asked(question: str, answer: str = "Nobody knows.", **fields: Any) -> Example:
    return Example(id="a", question=question, answer=answer, **fields)


def told(encoder: Encoder, fact: Fact) -> str:
    return encoder.tokenizer.decode([fact.encoded.ids[place] for place in fact.subject]).strip()


def test_the_taught_facts_give_a_curve_and_a_window(tiny: LanguageModel, examples: Examples) -> None:
    found = trace(tiny, examples["forget"], modules=("mlp.down_proj", "mlp.up_proj"))
    (effect,) = found.curves
    share = found.evidence["share_of_total_effect"]
    assert len(effect.values) == len(effect.low) == len(effect.high) == len(share) == 3
    assert all(low <= value <= high for low, value, high in zip(effect.low, effect.values, effect.high, strict=True))
    assert found.evidence["total_effect"] > 0.2
    assert found.evidence["total_effect"] == pytest.approx(
        found.evidence["clean_probability"] - found.evidence["corrupted_probability"]
    )
    np.testing.assert_allclose(np.array(share) * found.evidence["total_effect"], effect.values)
    (layer,) = found.evidence["layers"]
    assert layer == int(np.argmax(effect.values))
    prefix = f"model.layers.{layer}.mlp"
    assert set(found.names) == {f"{prefix}.down_proj.weight", f"{prefix}.up_proj.weight"}


def test_a_fact_that_one_block_carries_is_found_there(tiny: LanguageModel, examples: Examples) -> None:
    """The feed-forward parts of the other two blocks are silenced, so that they bring nothing back."""
    for silent in (0, 2):
        tiny.blocks()[silent][1].mlp.down_proj.weight.data.zero_()  # type: ignore[union-attr, operator]
    found = trace(tiny, examples["forget"], min_probability=0.0, min_effect=-1.0)
    assert found.curves[0].values[::2] == pytest.approx([0, 0], abs=1e-8)
    assert abs(found.curves[0].values[1]) > 1e-6


def test_the_whole_output_of_any_block_brings_everything_back(tiny: LanguageModel, examples: Examples) -> None:
    found = trace(tiny, examples["forget"], site="hidden", tokens="all")
    assert found.evidence["share_of_total_effect"] == pytest.approx([1, 1, 1], abs=1e-5)
    assert found.evidence["layers"] == [0]


def test_the_same_seed_gives_the_same_curve(tiny: LanguageModel, examples: Examples) -> None:
    rows = examples["forget"][:4]
    assert trace(tiny, rows) == trace(tiny, rows)
    assert trace(tiny, rows, seed=1).curves != trace(tiny, rows).curves


def test_no_more_facts_than_asked_for(tiny: LanguageModel, examples: Examples) -> None:
    found = trace(tiny, examples["forget"], facts=2).evidence
    assert found["facts"] + found["small_effect"] == 2


def test_a_blurred_subject_in_the_answer_costs_more(tiny: LanguageModel, examples: Examples) -> None:
    """An answer that repeats the name tells the model whom it speaks of, however blurred the question is."""
    named = tuple(row for row in examples["forget"] if row.subject and row.subject in (row.answer or ""))
    question, everywhere = (
        trace(tiny, named, noisy=noisy, min_effect=-1.0).evidence["total_effect"]
        for noisy in ("question", "everywhere")
    )
    assert everywhere > question


def test_what_is_counted_adds_up(tiny: LanguageModel, examples: Examples) -> None:
    rows = (
        *examples["forget"],
        Example(id="nobody", question="who wrote it?", answer="A person."),
        Example(id="strange", question="Who is Zyxw?", answer="Qqq vvv jjj.", subject="Zyxw"),
        Example(id="text", text="A document of some words."),
    )
    found = trace(tiny, rows).evidence
    assert found["without_subject"] == 1
    assert found["unknown"] >= 1
    assert found["facts"] + found["small_effect"] + found["unknown"] == len(examples["forget"]) + 1


def test_the_answer_alone_is_a_target_too(tiny: LanguageModel, examples: Examples) -> None:
    encoder = tiny.encoder
    row = examples["forget"][0]
    whole = find_fact(encoder, row, subject_of(row) or "", keywords=False)
    assert encoder.decode(whole.encoded.labels) == row.answer
    part = find_fact(encoder, row, subject_of(row) or "", keywords=True)
    assert len(part.encoded.labels) < len(whole.encoded.labels)
    assert trace(tiny, examples["forget"], target="answer").evidence["facts"] > 0


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_a_subject_is_found_among_the_tokens(tiny: LanguageModel, examples: Examples, template: Any) -> None:
    encoder = Encoder(tiny.tokenizer, template, system_prompt=None if template == "plain" else "Be brief.")
    for row in examples["forget"]:
        subject = subject_of(row) or ""
        fact = find_fact(encoder, row, subject, keywords=False)
        assert subject in told(encoder, fact)
        assert fact.last == max(fact.subject) < fact.encoded.num_prompt
        assert bool(fact.repeated) == (subject in (row.answer or ""))


def test_mentions_in_the_system_prompt_are_none_of_the_question(tiny: LanguageModel) -> None:
    """`Ada` is asked about twice; the last mention's last token is where values are put back."""
    encoder = Encoder(tiny.tokenizer, "chat", system_prompt="Ada, answer for Ada.")
    fact = find_fact(encoder, asked("Is Ada the Ada of old?", "Ada is."), "Ada", keywords=False)
    assert told(encoder, fact).split() == ["Ada", "Ada"]
    before = encoder.tokenizer.decode(list(fact.encoded.ids[: min(fact.subject)]))
    assert before.count("Ada") == 2
    assert fact.repeated


@pytest.mark.parametrize(
    ("question", "fields", "subject"),
    [
        ("Where was Ada Lovelace born?", {"subject": "ada lovelace"}, "ada lovelace"),
        ("Who wrote the play Hamlet?", {"subject": "Nobody"}, "Hamlet"),
        ("Who wrote Pride and The Old Man, says Mary?", {}, "The Old Man"),
        ("What did Ada, Countess Lovelace and Babbage build?", {}, "Countess Lovelace"),
        ("Who found the equation E=mc^2?", {}, "E=mc^2"),
        ("Polonium was found by whom?", {}, None),
    ],
)
def test_what_a_question_is_about(question: str, fields: dict[str, Any], subject: str | None) -> None:
    """The row's own subject, or the longest run of capitals, the first word in none; `Nobody` is the answer's."""
    assert subject_of(asked(question, **fields)) == subject


def test_an_unknown_subject_is_refused_by_row(tiny: LanguageModel, examples: Examples) -> None:
    wrong = dataclasses.replace(examples["forget"][1], id="row-7", subject="Adam Smith")
    with pytest.raises(UserError, match="row 'row-7': its subject 'Adam Smith' is not in its question"):
        trace(tiny, (examples["forget"][0], wrong))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_probability": 1.0}, r"no known fact to trace: of 8 forget rows 0 have no subject .* probability 1\.0"),
        ({"noise": 0.0}, r"noise on the subject lowers none of 8 known facts by 0\.05"),
        ({"modules": ("mlp.down_prj",)}, r"no module 'mlp\.down_prj' .*did you mean mlp\.down_proj"),
    ],
)
def test_what_cannot_be_traced_is_told(
    tiny: LanguageModel, examples: Examples, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trace(tiny, examples["forget"], **options)


def test_documents_alone_hold_no_fact(tiny: LanguageModel) -> None:
    with pytest.raises(UserError, match="needs forget rows with a question and an answer"):
        trace(tiny, (Example(id="text", text="A document."),))


@pytest.mark.parametrize(
    ("values", "width", "start"), [([0, 1, 3, 1, 0], 3, 1), ([2, 2, 2, 2], 2, 0), ([0, 5, 0, 5, 0], 2, 0)]
)
def test_windows_by_hand(values: list[float], width: int, start: int) -> None:
    """Ties go to the lowest."""
    assert best_window(values, width) == range(start, start + width)


def test_a_window_within_a_share_of_the_depth() -> None:
    """Of ten blocks the highest pair is 0 and 1; among 3 to 6 it is 5 and 6, and three blocks of two are both."""
    values = [9.0, 8.0, 0.0, 1.0, 0.0, 2.0, 3.0, 7.0, 7.0, 7.0]
    assert best_window(values, 2) == range(2)
    assert best_window(values, 2, range(3, 7)) == range(5, 7)
    assert best_window(values, 3, range(3, 5)) == range(3, 5)


def test_tracing_chooses_among_the_blocks_it_may(tiny: LanguageModel, examples: Examples) -> None:
    """Of three blocks the share from 0.6 on holds the last alone."""
    assert trace(tiny, examples["forget"][:3], depth=(0.6, 1.0)).evidence["layers"] == [2]
    with pytest.raises(UserError, match=r"localize\.depth"):
        trace(tiny, examples["forget"][:3], depth=(0.6, 0.2))


def test_nothing_of_the_model_moves(tiny: LanguageModel, examples: Examples) -> None:
    before = tiny.fingerprint()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    trace(tiny, examples["forget"][:3])
    assert torch.rand(1) == expected
    assert tiny.fingerprint() == before
