"""BS-S: what its mixture keeps in float64 over a bigram model, and how it samples a real one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from fake_view import BigramView
from torch import Tensor

from expunge.core.errors import UserError
from expunge.core.permission import granted
from expunge.core.plugins import find
from expunge.core.validation import check
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.forget.belief_sequence import BeliefSequence
from expunge.forget.npo import NPO
from expunge.losses.base import Loss, Setup
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, Needs, row_set
from expunge.models.reference_weights import OriginalWeights
from expunge.models.sample import Sample, Sampler

EXACT = {"rtol": 0, "atol": 1e-10}
SIZE = 7
PROMPTS = [(1, 2), (5,)]
ANSWERS = [(3, 4, 0), (6, 2, 2, 1)]
OPTIONS: dict[str, dict[str, Any]] = {
    "gradient_ascent": {},
    "weighted_ascent": {},
    "npo": {},
    "simnpo": {},
    "belief_token": {"k": 3},
    "max_entropy": {},
}
"""Base -> options that fit 7 tokens."""
Samples = Sequence[Sequence[tuple[int, ...]]]
"""For each row its samples."""


def encoded(row: int, ids: tuple[int, ...]) -> Encoded:
    return Encoded((*PROMPTS[row], *ids), len(PROMPTS[row]))


ROWS = [encoded(row, ids) for row, ids in enumerate(ANSWERS)]
EXAMPLES = [Example(f"row {row}", "?", "!") for row in range(len(ROWS))]


def table(seed: int) -> Tensor:
    return torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Toy:
    """Losses over the bigram model: value, and gradient on its logits."""

    model: LanguageModel
    monkeypatch: pytest.MonkeyPatch

    def mixed(
        self, base: str, samples: Samples, rows: Sequence[int] = (0, 1), **options: Any
    ) -> tuple[Tensor, Tensor, dict[str, float]]:
        """BS-S when these are the samples."""

        def draw(_: Sampler, indices: Sequence[int], seeds: Sequence[Sequence[str]]) -> list[list[Sample]]:
            return [
                [Sample(encoded(row, ids), EXAMPLES[row], -1.0, ids == ANSWERS[row]) for ids in samples[row]]
                for row in indices
            ]

        self.monkeypatch.setattr(Sampler, "draw", draw)
        most = max(1, *map(len, samples))
        tables = {"base": base, "base_options": OPTIONS[base], "samples": most, **options}
        loss = BeliefSequence(BeliefSequence.Config(**tables))
        return (*self._measured(loss, ROWS, rows), loss.logs)

    def plain(self, base: str, sequences: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
        """The base alone on given rows."""
        kind = find("forget", base, Loss)
        return self._measured(kind(kind.Config(**OPTIONS[base])), sequences, range(len(sequences)))

    def _measured(self, loss: Loss, sequences: Sequence[Encoded], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        examples = EXAMPLES if sequences is ROWS else [EXAMPLES[0]] * len(sequences)
        loss.prepare(Setup(self.model, examples, sequences, "0/forget", 1))
        logits = table(0).requires_grad_()
        view = BigramView(logits, [sequences[row] for row in rows], table(1), rows)
        value = loss.loss(view)
        return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.fixture
def toy(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(tiny, monkeypatch)


EVEN = [[(2, 2), (3, 0)], [(1, 1, 1), (4, 0)]]


@pytest.mark.parametrize("base", OPTIONS)
def test_weight_blends_answers_and_samples(toy: Toy, base: str) -> None:
    """0 is the base on the answers, 1 the base on the samples, 1/4 lies a quarter of the way."""
    answers = toy.plain(base, ROWS)
    samples = toy.plain(base, [encoded(row, ids) for row, drawn in enumerate(EVEN) for ids in drawn])
    assert (samples[0] - answers[0]).abs() > 1e-6
    for weight in (0.0, 0.25, 1.0):
        *found, _ = toy.mixed(base, EVEN, weight=weight)
        expected = [(1 - weight) * one + weight * other for one, other in zip(answers, samples, strict=True)]
        torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("base", OPTIONS)
def test_copies_of_a_sample_are_one_sample_and_order_is_nothing(toy: Toy, base: str) -> None:
    once = toy.mixed(base, [[(2, 2)], [(1, 1, 1)]])[:2]
    torch.testing.assert_close(toy.mixed(base, [[(2, 2)] * 3, [(1, 1, 1)] * 3])[:2], once, **EXACT)
    turned = toy.mixed(base, [drawn[::-1] for drawn in EVEN])[:2]
    torch.testing.assert_close(turned, toy.mixed(base, EVEN)[:2], **EXACT)


@pytest.mark.parametrize("base", OPTIONS)
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_samples_that_repeat_the_answer_give_the_base(toy: Toy, base: str, weight: float) -> None:
    *found, logs = toy.mixed(base, [[ANSWERS[0]] * 2, [ANSWERS[1]] * 2], weight=weight)
    torch.testing.assert_close(tuple(found), toy.plain(base, ROWS), **EXACT)
    assert logs["belief_duplicates"] == 1.0


@pytest.mark.parametrize("base", OPTIONS)
def test_rows_weigh_the_same_whatever_came_out_empty(toy: Toy, base: str) -> None:
    """Three samples beside one, and beside none: the batch is the mean of its rows, alone each."""
    for samples in ([[(2, 2), (3, 0), (1, 5)], [(1, 1, 1)]], [[(2, 2), (3, 0), (1, 5)], []]):
        *whole, logs = toy.mixed(base, samples)
        apart = [toy.mixed(base, samples, [row])[:2] for row in (0, 1)]
        torch.testing.assert_close(whole, [(one + two) / 2 for one, two in zip(*apart, strict=True)], **EXACT)
        assert logs["belief_empty"] == pytest.approx(1 - sum(map(len, samples)) / 6)


@pytest.mark.parametrize("base", OPTIONS)
def test_a_row_without_samples_counts_with_its_answer(toy: Toy, base: str) -> None:
    """Alone, and in a batch where nothing was sampled at all."""
    samples: Samples = [[], []]
    torch.testing.assert_close(toy.mixed(base, samples)[:2], toy.plain(base, ROWS), **EXACT)
    torch.testing.assert_close(
        toy.mixed(base, [EVEN[0], []], [1], weight=0.8)[:2], toy.mixed(base, samples, [1], weight=0.1)[:2], **EXACT
    )


@dataclass
class Real:
    """The taught model with forget rows; `moved` changes its weights."""

    model: LanguageModel
    setup: Setup

    def build(self, **options: Any) -> BeliefSequence:
        loss = BeliefSequence(BeliefSequence.Config(**{"temperature": 2.0, "samples": 2, "top_k": 0, **options}))
        loss.prepare(self.setup)
        return loss

    def view(self, epoch: int = 0, rows: Sequence[int] = (0, 1, 2)) -> Forward:
        batch = collate([self.setup.sequences[row] for row in rows], rows)
        kept = row_set(self.model, self.setup.sequences, Needs(reference_logp=True))
        return Forward(self.model, batch, kept, epoch)

    @torch.no_grad()
    def moved(self) -> None:
        generator = torch.Generator().manual_seed(1)
        for weight in self.model.trainable():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)


@pytest.fixture
def real(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> Real:
    tiny.freeze_but([name for name, _ in tiny.network.named_parameters()])
    rows = examples["forget"][:3]
    return Real(tiny, Setup(tiny, rows, [tiny.encoder.example(row) for row in rows], "0/forget", 4))


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], str, list[list[Sample]]]]:
    """Every call of the sampler: rows, first seed, samples."""
    seen: list[tuple[tuple[int, ...], str, list[list[Sample]]]] = []
    draw = Sampler.draw

    def watched(self: Sampler, indices: Sequence[int], seeds: Sequence[Sequence[str]]) -> list[list[Sample]]:
        samples = draw(self, indices, seeds)
        seen.append((tuple(indices), seeds[0][0], samples))
        return samples

    monkeypatch.setattr(Sampler, "draw", watched)
    return seen


def test_off_policy_asks_the_original_model_once(real: Real, draws: list[Any]) -> None:
    loss = real.build(refresh="off_policy")
    assert [rows for rows, _, _ in draws] == [(0, 1, 2)]
    real.moved()
    for epoch in (0, 1, 3):
        loss.loss(real.view(epoch))
    assert len(draws) == 1
    assert loss.whole_epochs == 0


def test_epochs_refresh_all_rows_when_they_are_due(real: Real, draws: list[Any]) -> None:
    """Every two epochs: on entering epoch 0 and epoch 2, under the name of that epoch, from the weights of then."""
    loss = real.build(refresh="epoch", refresh_every=2)
    assert not draws
    assert loss.whole_epochs == 2
    for epoch in (0, 0, 1, 2, 3):
        loss.loss(real.view(epoch, [epoch % 3]))
        real.moved()
    assert [(rows, seed) for rows, seed, _ in draws] == [
        ((0, 1, 2), "0/forget/belief/0/0/0"),
        ((0, 1, 2), "0/forget/belief/2/0/0"),
    ]


def test_steps_ask_for_the_batch_only(real: Real, draws: list[Any]) -> None:
    loss = real.build(refresh="step")
    loss.loss(real.view(0, [2]))
    loss.loss(real.view(1, [1, 2]))
    assert [(rows, seed) for rows, seed, _ in draws] == [
        ((2,), "0/forget/belief/0/2/0"),
        ((1, 2), "0/forget/belief/1/1/0"),
    ]
    assert loss.whole_epochs == 0


def test_the_likeliest_candidates_are_kept(real: Real, draws: list[Any]) -> None:
    loss = real.build(refresh="off_policy", samples=2, candidates=6)
    loss.loss(real.view())
    (_, _, samples) = draws[0]
    best = [sorted((sample.logp for sample in row), reverse=True)[:2] for row in samples]
    assert any(best[row] != [sample.logp for sample in drawn[:2]] for row, drawn in enumerate(samples))
    kept = [logp for row in best for logp in row]
    assert loss.logs["belief_logp"] == pytest.approx(sum(kept) / len(kept))


@pytest.mark.parametrize("refresh", ["off_policy", "epoch", "step"])
def test_npo_compares_samples_with_the_original_model(real: Real, draws: list[Any], refresh: str) -> None:
    """Also for samples drawn after the weights have moved: the same as NPO on a row set made of them before."""
    original = OriginalWeights(real.model)
    view = real.view()
    loss = real.build(refresh=refresh, base="npo", weight=1.0)
    real.moved()
    weights = [weight.detach().clone() for weight in real.model.trainable()]
    with torch.no_grad():
        found = loss.loss(view)
    expected = []
    for row in draws[0][2]:
        samples = [sample.encoded for sample in row]
        assert samples, "a row without samples shows nothing here"
        with original.swapped_in():
            rows = row_set(real.model, samples, Needs(reference_logp=True))
        with torch.no_grad():
            expected.append(NPO(NPO.Config()).loss(Forward.of(real.model, rows, range(len(samples)))))
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(one, other) for one, other in zip(real.model.trainable(), weights, strict=True))


def test_documents_are_continued(real: Real, draws: list[Any]) -> None:
    rows = [Example("long", text="The author lives near the river and writes about it. " * 8)]
    sequences = [real.model.encoder.example(rows[0])]
    loss = BeliefSequence(BeliefSequence.Config())
    loss.prepare(Setup(real.model, rows, sequences, "0/forget", 1))
    value = loss.loss(Forward(real.model, collate(sequences, [0]), epoch=0))
    assert value.isfinite()
    prompt = max(32, len(sequences[0].ids) // 4)
    for sample in draws[0][2][0]:
        assert sample.encoded.prompt == sequences[0].ids[:prompt]
        assert sample.example.text is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "npoo"}, r"forget\.base: forget: no 'npoo'; did you mean .*npo"),
        ({"base": "belief_sequence"}, r"forget\.base: 'belief_sequence' cannot be its own base"),
        ({"base": "expunge.forget.belief_sequence:BeliefSequence"}, r"forget\.base: .* cannot be its own base"),
        ({"base_options": {"kk": 3}}, r"unknown key 'forget\.base_options\.kk'"),
        ({"base": "npo", "base_options": {"betta": 1}}, r"'forget\.base_options\.betta'; did you mean beta"),
        ({"base": "npo", "base_options": {"beta": -1}}, r"forget\.base_options\.beta: .* greater than 0, got -1"),
        ({"weight": 1.5}, r"forget\.weight"),
        ({"samples": 3, "candidates": 2}, r"forget\.candidates: .*must be 0 or at least samples \(3\), got 2"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with granted(options), pytest.raises(UserError, match=message):
        check(BeliefSequence.Config, options, "forget")


def test_options_of_the_base_are_written_out() -> None:
    """A run's record must hold all options, also those that the user left at their defaults."""
    config = check(BeliefSequence.Config, {"base": "npo"}, "forget")
    assert config.base_options == {"beta": 0.1}
    assert check(BeliefSequence.Config, {"base_options": {"k": 5}}, "forget").base_options["weight"] == 0.2
