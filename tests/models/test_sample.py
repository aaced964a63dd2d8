"""Samples of rows: where they begin and end, and that nothing but their seed, row and model makes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.forward import score_rows
from expunge.models.sample import Sample, Sampler, SamplingConfig


@pytest.fixture
def rows(examples: dict[str, tuple[Example, ...]]) -> tuple[Example, ...]:
    return examples["forget"][:4]


def sampler(model: LanguageModel, rows: Sequence[Example], **options: float) -> Sampler:
    return Sampler(model, rows, [model.encoder.example(row) for row in rows], SamplingConfig(**options))


def draw(sampler: Sampler, indices: Sequence[int], number: int = 3) -> list[list[Sample]]:
    return sampler.draw(indices, [[f"{index}/{count}" for count in range(number)] for index in indices])


def test_draws_depend_on_seed_row_and_model_alone(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """Not on the batch, the mode or the global generator, which stay as they were."""
    flat = sampler(tiny, rows, temperature=2.5, top_k=0)
    tiny.network.train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    together = [[sample.encoded for sample in row] for row in draw(flat, range(4))]
    assert tiny.network.training
    assert torch.equal(torch.get_rng_state(), state)
    tiny.network.eval()
    torch.manual_seed(6)
    assert [[sample.encoded for sample in row] for row in draw(flat, [2, 1])] == [together[2], together[1]]
    assert not tiny.network.training
    assert len({sample for row in together for sample in row}) > 8


def test_end_token_is_a_label_only_if_it_was_emitted(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """Cut off after 4 tokens there is none; with room for it, the taught answers end in one."""
    stop = tiny.encoder.stop_ids
    for row in draw(sampler(tiny, rows, top_k=1, max_new_tokens=4), range(4), 1):
        assert len(row[0].encoded.labels) == 4
        assert not stop & set(row[0].encoded.labels)
    whole = draw(sampler(tiny, rows, top_k=1), range(4), 1)
    ended = [row[0] for row in whole if row[0].encoded.labels[-1] in stop]
    assert ended
    assert any(sample.repeats for sample in ended)
    for index, (sample,) in enumerate(whole):
        assert sample.repeats == (sample.encoded == tiny.encoder.example(rows[index]))
        assert sample.example.question == rows[index].question
        assert sample.example.answer == tiny.encoder.decode(sample.encoded.labels)


def test_a_sample_is_at_most_half_as_long_again_as_the_answer(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """At temperature 50 an end token is one in hundreds, so that most samples reach the limit of `1.5 n`."""
    limits = [int(1.5 * len(tiny.encoder.example(row).labels)) for row in rows]
    lengths = [
        [len(sample.encoded.labels) for sample in row]
        for row in draw(sampler(tiny, rows, temperature=50.0, top_k=0), range(4))
    ]
    assert all(max(row) == limit for row, limit in zip(lengths, limits, strict=True))
    unlimited = draw(sampler(tiny, rows, temperature=50.0, top_k=0, longest=0.0, max_new_tokens=60), range(4))
    assert [max(len(sample.encoded.labels) for sample in row) for row in unlimited] == [60] * len(rows)


def test_likelihood_is_that_of_a_plain_pass(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """Of the model itself: temperature and top_k shape the draw, not what is reported of it."""
    samples = [sample for row in draw(sampler(tiny, rows, temperature=3.0, top_k=40), range(4)) for sample in row]
    expected = [float(logp.mean()) for logp in score_rows(tiny, [sample.encoded for sample in samples])]
    assert [sample.logp for sample in samples] == pytest.approx(expected, abs=1e-4)


def test_empty_samples_are_left_out(tiny: LanguageModel, rows: tuple[Example, ...]) -> None:
    """A prompt that holds the whole answer but its end token: the taught model ends it at once."""
    ended = draw(sampler(tiny, rows, top_k=1), range(4), 1)
    index = next(index for index, row in enumerate(ended) if row[0].encoded.labels[-1] in tiny.encoder.stop_ids)
    ids = ended[index][0].encoded.ids
    over = Encoded(ids, len(ids) - 1)
    drawn = draw(Sampler(tiny, rows[:2], [over, tiny.encoder.example(rows[1])], SamplingConfig(top_k=1)), [0, 1], 2)
    assert [len(row) for row in drawn] == [0, 2]


def test_documents_are_continued_after_a_quarter(tiny: LanguageModel) -> None:
    """80 words: a quarter of the tokens, or 32 where that is more; a text shorter than that keeps one to predict."""
    texts = ["the author writes " * 80, "the author writes " * 20, "the author"]
    rows = [Example(str(place), text=text.strip()) for place, text in enumerate(texts)]
    for row, (sample,) in zip(rows, draw(sampler(tiny, rows, temperature=9.0, top_k=0), range(3), 1), strict=True):
        ids = tiny.encoder.example(row).ids
        size = min(max(32, len(ids) // 4), len(ids) - 1)
        assert sample.encoded.prompt == ids[:size]
        assert sample.encoded.num_prompt == size
        assert sample.example.text is not None
