"""One pass over the data: the same numbers in every batch composition, and nothing that was not asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from expunge.data.encode import Encoded
from expunge.data.example import Example, Splits
from expunge.evaluate import evidence
from expunge.evaluate.base import EvaluateConfig, Item, Need
from expunge.evaluate.evidence import collect, sample_rows, with_original
from expunge.models.base import LanguageModel
from expunge.models.forward import score_rows

Rows = dict[str, list[Example]]
ALL: frozenset[Need] = frozenset(get_args(Need))


@pytest.fixture
def rows(examples: dict[str, tuple[Example, ...]]) -> Rows:
    """Questions of two splits, one of them very short, and a document."""
    short = replace(examples["forget"][0], id="short", question="Who?", answer="I.", paraphrased_question=None)
    text = " ".join(row.answer or "" for row in examples["retain"][:3])
    document = Example("document", text=text)
    return {"forget": [*examples["forget"][:4], short, document], "retain": list(examples["retain"][:3])}


@pytest.fixture
def precise(tiny: LanguageModel) -> LanguageModel:
    """The tiny model without autocast: batches of other shapes round differently in bfloat16."""
    tiny.precision = "float32"
    return tiny


def _texts(item: Item) -> tuple[Any, ...]:
    return (item.greedy, item.samples, item.paraphrased_greedy, item.continuation)


def test_batch_composition_changes_nothing(precise: LanguageModel, rows: Rows) -> None:
    """A budget of 64 tokens is about one prompt a batch, 4096 all of them at once; the rows' order is another."""
    config = EvaluateConfig(samples=3, max_new_tokens=12, probe_splits=("forget", "retain"))
    wide = collect(precise, rows, ALL, config, 0)
    narrow = collect(precise, rows, ALL, config.model_copy(update={"token_budget": 64}), 0)
    turned = collect(precise, {name: some[::-1] for name, some in rows.items()}, ALL, config, 0)
    for other in (narrow, {name: some[::-1] for name, some in turned.items()}):
        for split, items in wide.items():
            for one, two in zip(items, other[split], strict=True):
                assert _texts(one) == _texts(two)
                for need in ("answer", "paraphrased_answer"):
                    first, second = getattr(one, need), getattr(two, need)
                    assert (first is None) == (second is None)
                    if first is not None:
                        assert first.hit == second.hit
                        assert first.logp == pytest.approx(second.logp, abs=1e-4)
                assert len(one.perturbed_answer) == len(two.perturbed_answer) == len(one.example.perturbed_answer)
                for first, second in zip(one.perturbed_answer, two.perturbed_answer, strict=True):
                    assert first.logp == pytest.approx(second.logp, abs=1e-4)


def test_scored_answers_are_those_of_a_plain_forward_pass(precise: LanguageModel, rows: Rows) -> None:
    """Each answer by itself, without cache, padding or batch; wrong answers in the row's own order."""
    found = collect(precise, rows, ALL, EvaluateConfig(samples=0, max_new_tokens=1), 0)

    def plain(encoded: Encoded) -> list[float]:
        (logp,) = score_rows(precise, [encoded])
        return logp.tolist()

    for split, items in found.items():
        for item, row in zip(items, rows[split], strict=True):
            assert item.example is row
            assert item.answer is not None
            if row.text is not None:
                document = precise.encoder.document(row.text, prompt_share=0.25)
                assert list(item.answer.logp) == pytest.approx(plain(document), abs=1e-4)
                assert item.continuation
                assert row.text.endswith(item.continuation)
                continue
            question = row.question or ""
            expected = plain(precise.encoder.answer(question, row.answer or ""))
            assert list(item.answer.logp) == pytest.approx(expected, abs=1e-4)
            for scored, wrong in zip(item.perturbed_answer, row.perturbed_answer, strict=True):
                expected = plain(precise.encoder.answer(question, wrong))
                assert list(scored.logp) == pytest.approx(expected, abs=1e-4)


def test_only_what_is_needed_is_computed(tiny: LanguageModel, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 + 3 prompts, one of a document, which has no wrong answers; 4 + 3 with a paraphrase, asked on forget rows only;
    2 samples on each of the 6 forget rows.
    """
    calls: dict[str, int] = {}

    def spy(name: str, count: Any) -> None:
        real = getattr(evidence, name)

        def counted(*arguments: Any) -> Any:
            calls[name] = calls.get(name, 0) + count(*arguments)
            return real(*arguments)

        monkeypatch.setattr(evidence, name, counted)

    spy("encode_prompts", lambda model, prompts: len(prompts))
    spy("score_answers", lambda prefix, places, answers: len(answers))
    spy("decode", lambda prefix, *rest: prefix.mask.shape[0])
    config = EvaluateConfig(samples=2, max_new_tokens=2)
    wrong = sum(len(row.perturbed_answer) for some in rows.values() for row in some)
    cases: list[tuple[set[Need], dict[str, int]]] = [
        ({"answer"}, {"encode_prompts": 9, "score_answers": 9}),
        ({"perturbed_answer"}, {"encode_prompts": 8, "score_answers": wrong}),
        ({"greedy"}, {"encode_prompts": 9, "decode": 9}),
        ({"samples"}, {"encode_prompts": 6, "decode": 12}),
        ({"greedy", "paraphrased_greedy"}, {"encode_prompts": 13, "decode": 13}),
        ({"answer", "greedy", "samples"}, {"encode_prompts": 9, "score_answers": 9, "decode": 21}),
    ]
    for needs, expected in cases:
        calls.clear()
        collect(tiny, rows, frozenset(needs), config, 0)
        assert calls == expected, needs


def test_samples_are_drawn_where_and_as_asked(tiny: LanguageModel, rows: Rows) -> None:
    config = EvaluateConfig(samples=4, max_new_tokens=12, temperature=2.0)
    needs: frozenset[Need] = frozenset({"samples"})
    first = collect(tiny, rows, needs, config, 0)
    assert [len(item.samples) for item in first["forget"]] == [4] * 6
    assert [len(item.samples) for item in first["retain"]] == [0] * 3
    assert len({sample for item in first["forget"] for sample in item.samples}) > 6
    again = collect(tiny, rows, needs, config, 0)
    other = collect(tiny, rows, needs, config, 1)
    assert [item.samples for item in first["forget"]] == [item.samples for item in again["forget"]]
    assert [item.samples for item in first["forget"]] != [item.samples for item in other["forget"]]


def test_model_is_left_as_it_was(tiny: LanguageModel, rows: Rows) -> None:
    before = tiny.fingerprint()
    for training in (True, False):
        tiny.network.train(training)
        collect(tiny, rows, ALL, EvaluateConfig(samples=1, max_new_tokens=2), 0)
        assert tiny.network.training is training
    assert tiny.fingerprint() == before
    assert torch.is_grad_enabled()


def test_greedy_ids_are_those_of_the_text(tiny: LanguageModel, rows: Rows) -> None:
    found = collect(tiny, rows, frozenset({"greedy"}), EvaluateConfig(max_new_tokens=8), 0)
    for items in found.values():
        for item in items:
            assert item.greedy_ids is not None
            assert len(item.greedy_ids) <= 8
            assert tiny.encoder.decode(item.greedy_ids) == item.greedy
            assert not set(item.greedy_ids) & tiny.encoder.stop_ids


def test_original_answers_stand_beside_their_own_rows(rows: Rows) -> None:
    before = {split: [Item(row, greedy=f"old {row.id}") for row in some] for split, some in rows.items()}
    after = {split: [Item(row, greedy="new") for row in some] for split, some in rows.items()}
    for items in with_original(after, before).values():
        assert all((item.greedy, item.original_greedy) == ("new", f"old {item.example.id}") for item in items)


def test_large_splits_are_sampled_in_their_order() -> None:
    """10 of 50 by seed; a split of 10 or fewer is taken whole."""
    many = tuple(Example(str(number), f"Q{number}", "A") for number in range(50))
    splits = Splits(many, many[:10])
    first = sample_rows(splits, 10, 0)
    numbers = [int(row.id) for row in first["forget"]]
    assert len(numbers) == 10
    assert numbers == sorted(set(numbers))
    assert numbers != list(range(10))
    assert first["retain"] == list(many[:10])
    assert sample_rows(splits, 10, 0) == first
    assert sample_rows(splits, 10, 1)["forget"] != first["forget"]
    assert set(first) == {"forget", "retain"}
