"""One pass over the data: the same numbers in every batch composition, and nothing that was not asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.evaluate import evidence_plan
from expunge.evaluate.base import Item, Need
from expunge.evaluate.config import EvaluateConfig
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
    2 samples on each of the 6 forget rows. Beside a stored answer, a greedy one of 2 tokens is only decoded where the
    model leaves the stored one within these 2.
    """
    calls: dict[str, int] = {}

    def spy(name: str, count: Any) -> None:
        real = getattr(evidence_plan, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls[name] = calls.get(name, 0) + count(*arguments)
            return real(*arguments, **options)

        monkeypatch.setattr(evidence_plan, name, counted)

    spy("encode_prompts", lambda model, prompts: len(prompts))
    spy("read_answers", lambda prefix, places, answers: len(answers))
    spy("decode", lambda prefix, *rest: prefix.mask.shape[0])
    config = EvaluateConfig(samples=2, max_new_tokens=2)
    wrong = sum(len(row.perturbed_answer) for some in rows.values() for row in some)
    found = collect(tiny, rows, frozenset({"answer"}), config, 0)
    leaving = sum(
        not (item.answer.hit[:2] == (True, True) and len(item.answer.hit) > 2)
        for items in found.values()
        for item in items
        if item.answer is not None
    )
    assert 0 < leaving < 9
    cases: list[tuple[set[Need], dict[str, int]]] = [
        ({"answer"}, {"encode_prompts": 9, "read_answers": 9}),
        ({"perturbed_answer"}, {"encode_prompts": 8, "read_answers": wrong}),
        ({"greedy"}, {"encode_prompts": 9, "decode": 9}),
        ({"samples"}, {"encode_prompts": 6, "decode": 12}),
        ({"greedy", "paraphrased_greedy"}, {"encode_prompts": 13, "decode": 13}),
        ({"answer", "greedy", "samples"}, {"encode_prompts": 9, "read_answers": 9, "decode": 12 + leaving}),
    ]
    for needs, expected in cases:
        calls.clear()
        collect(tiny, rows, frozenset(needs), config, 0)
        assert calls == expected, needs


def test_a_draft_changes_no_greedy_answer(precise: LanguageModel, rows: Rows) -> None:
    """Beside the stored answers and without them, for answers that are known whole, in part and not at all."""
    strange = [replace(row, id=f"{row.id}-x", answer=f"{row.answer} And more.") for row in rows["retain"]]
    wrong = [replace(row, id=f"{row.id}-y", answer="Zebras rarely.") for row in rows["retain"]]
    asked = {**rows, "retain": [*rows["retain"], *strange, *wrong]}
    for limit in (3, 24):
        config = EvaluateConfig(samples=0, max_new_tokens=limit)
        drafted = collect(precise, asked, frozenset({"answer", "greedy"}), config, 0)
        plain = collect(precise, asked, frozenset({"greedy"}), config, 0)
        for name, items in plain.items():
            for one, two in zip(items, drafted[name], strict=True):
                assert two.answer is not None
                assert (one.greedy, one.greedy_ids) == (two.greedy, two.greedy_ids)


def test_moments_are_those_of_the_whole_distribution(precise: LanguageModel, rows: Rows) -> None:
    """Of `log p` under `p`, by a plain forward pass in float64."""
    found = collect(precise, {"forget": rows["forget"][:1]}, frozenset({"answer", "moments"}), EvaluateConfig(), 0)
    (item,) = found["forget"]
    assert item.answer is not None
    encoded = precise.encoder.example(item.example)
    with torch.no_grad():
        logits = precise.base(torch.tensor([encoded.ids])).logits[0, encoded.num_prompt - 1 : -1].double()
    logp = logits.log_softmax(-1)
    mean = (logp.exp() * logp).sum(-1)
    variance = (logp.exp() * logp.square()).sum(-1) - mean.square()
    assert item.answer.mean == pytest.approx(mean.tolist(), abs=1e-4)
    assert item.answer.variance == pytest.approx(variance.tolist(), abs=1e-3)


def test_a_letter_is_scored_after_the_question_with_its_options(precise: LanguageModel) -> None:
    row = Example("quiz", "Who?", "Ada", options=("Eve", "Ada", "Bob"))
    (item,) = collect(precise, {"general": [row]}, frozenset({"choices"}), EvaluateConfig(), 0)["general"]
    for letter, logp in zip(precise.encoder.choices(row), item.choice_logp, strict=True):
        (expected,) = score_rows(precise, [letter])
        assert logp == pytest.approx(expected.sum().item(), abs=1e-4)


def test_gradient_norms_leave_the_model_alone(tiny: LanguageModel, rows: Rows) -> None:
    """Against a plain backward pass; which weights are trainable does not matter."""
    tiny.precision = "float32"
    (name,) = [name for name, _ in tiny.network.named_parameters() if name.endswith("layers.1.mlp.down_proj.weight")]
    tiny.freeze_but([name])
    row = rows["forget"][0]
    (item,) = collect(tiny, {"forget": [row]}, frozenset({"gradient_norms"}), EvaluateConfig(), 0)["forget"]
    assert [tensor.requires_grad for tensor in tiny.base.parameters()].count(True) == 1
    assert all(tensor.grad is None for tensor in tiny.base.parameters())
    encoded = tiny.encoder.example(row)
    for tensor in tiny.base.parameters():
        tensor.requires_grad_(True)
    labels = torch.tensor([[-100] * encoded.num_prompt + list(encoded.labels[:-1]) + [-100]])
    tiny.base(torch.tensor([encoded.ids]), labels=labels).loss.backward()
    gradients = [tensor.grad for tensor in tiny.base.parameters() if tensor.grad is not None]
    for order in (1, 2, float("inf")):
        mean = torch.stack([gradient.norm(order) for gradient in gradients]).mean().item()
        assert item.gradient_norms[str(order)] == pytest.approx(mean, rel=1e-3)


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


def test_answers_that_met_the_limit_are_marked(tiny: LanguageModel, rows: Rows) -> None:
    """One token ends no answer but an empty one, 40 end all greedy ones, and so does a stop string in the text."""
    for limit, stop in ((1, ()), (40, ()), (3, ("e",))):
        config = EvaluateConfig(max_new_tokens=limit, samples=2, stop=stop)
        for item in collect(tiny, rows, frozenset({"greedy", "samples"}), config, 0)["forget"][:4]:
            text = tiny.encoder.decode(item.greedy_ids or ())
            assert item.greedy_ended is (limit == 40 or bool(stop and "e" in text))
            if limit == 1:
                assert item.samples_ended == tuple(sample == "" for sample in item.samples)
