"""The block that tells forget from retain rows best, on the taught tiny model of three blocks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.localize.base import Selection
from expunge.localize.mutual_information import MutualInformation, multi_domain
from expunge.models.base import LanguageModel
from expunge.models.entanglement import gradient_cosines

AUTHORS = ("Ana Bell", "Carl Dorn", "Eva Finch", "Gus Hale", "Ida Jones")
PLACES = ("Lima", "Oslo", "Rome", "Kyiv", "Bern")


@pytest.fixture(scope="session")
def splits() -> Splits:
    """25 questions about people to forget, 30 short texts about places to retain."""
    forget = [
        Example(f"f{i}{j}", question=f"Where was {author} born?", answer=f"{author} was born in {place}.")
        for i, author in enumerate(AUTHORS)
        for j, place in enumerate(PLACES)
    ]
    retain = [
        Example(f"r{i}{j}", text=f"The river near {place} is {length} miles long and flows to the sea.")
        for i, place in enumerate(PLACES)
        for j, length in enumerate((12, 40, 7, 99, 310, 58))
    ]
    return Splits(tuple(forget), tuple(retain))


def select(model: LanguageModel, splits: Splits, seed: int = 0, **options: Any) -> Selection:
    return MutualInformation(MutualInformation.Config(components=2, **options)).select(model, splits, seed)


@pytest.mark.parametrize("estimator", ["js", "paper"])
def test_the_choice_and_its_evidence(tiny: LanguageModel, splits: Splits, estimator: str) -> None:
    found = select(tiny, splits, estimator=estimator, gradient_cosine=True)
    assert [len(curve.values) for curve in found.curves] == [3] * 5
    values = found.curves[0].values
    best = values.index(max(values) if estimator == "js" else min(values))
    assert found.evidence["layer"] == best
    assert found.evidence["layers"] == list(range(best + 1))
    assert found.evidence["texts"] == 25
    assert found.evidence["heuristic"] == (estimator == "paper")
    assert list(found.names) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(best + 1)]
    assert json.loads(json.dumps(found.evidence)) == found.evidence
    for curve in found.curves:
        assert (
            (found.evidence["best"][curve.name] == best)
            or curve.name in found.evidence["disagree"]
            or (curve.values[best] == curve.values[found.evidence["best"][curve.name]])
        )


def test_people_and_places_are_told_apart(tiny: LanguageModel, splits: Splits) -> None:
    """And two halves of the same rows are not."""
    apart = select(tiny, splits).curves
    assert max(apart[0].values) > 0.5
    assert max(apart[1].values) > 0.95
    mixed = Splits(splits.retain[::2] + splits.retain[:10], splits.retain[1::2] + splits.retain[:10])
    assert max(select(tiny, mixed).curves[0].values) < 0.2


def test_equation_7_by_hand() -> None:
    """Two blocks, three domains: sums of 0.6 and 0.9 with the retain rows, of 1.2 and 0.6 between domains."""
    with_retain = [[0.1, 0.2], [0.2, 0.3], [0.3, 0.4]]
    between = [[0.5, 0.1], [0.4, 0.2], [0.3, 0.3]]
    assert multi_domain(3, [*with_retain, *between], 0.5) == pytest.approx([1.2, 1.2])
    assert multi_domain(3, [*with_retain, *between], -1.0) == pytest.approx([-0.6, 0.3])
    assert multi_domain(3, [*with_retain, *between], 0.0) == pytest.approx([0.6, 0.9])


@pytest.mark.parametrize("estimator", ["js", "paper"])
def test_topics_are_domains(tiny: LanguageModel, splits: Splits, estimator: str) -> None:
    """Places stand in for a second domain: the curve that decides is the sum of those listed beside it."""
    of_people = tuple(replace(row, topic="people") for row in splits.forget)
    of_rivers = tuple(replace(row, id=f"{row.id}x", topic="rivers", text=f"{row.text} Far.") for row in splits.retain)
    both = Splits((*of_people, *of_rivers), splits.retain)
    found = select(tiny, both, estimator=estimator, eta=0.25)
    curves = {curve.name.rpartition(", ")[2]: curve.values for curve in found.curves}
    people, rivers, pair = (
        curves[f"{name}"] for name in ("people and retain", "rivers and retain", "people and rivers")
    )
    wanted = [one + other + 0.25 * third for one, other, third in zip(people, rivers, pair, strict=True)]
    assert found.curves[0].values == pytest.approx(wanted)
    if estimator == "js":
        assert people[0] > rivers[0], "the second domain is nearly the retain rows themselves"
    assert found.evidence["domains"] == {"people": 25, "rivers": 30}
    assert found.evidence["layer"] == wanted.index((max if estimator == "js" else min)(wanted))


def test_domains_need_topics(tiny: LanguageModel, splits: Splits) -> None:
    with pytest.raises(UserError, match=r"localize\.eta: .*'topic'.*found none"):
        select(tiny, splits, eta=0.1)
    rows = tuple(replace(row, topic="a" if place < 5 else "b") for place, row in enumerate(splits.forget))
    with pytest.raises(UserError, match=r"need 20 texts of each topic, got 5 of 'a'"):
        select(tiny, Splits(rows, splits.retain), eta=0.1)


def test_window_and_depth(tiny: LanguageModel, splits: Splits) -> None:
    """Sought in the upper two of three blocks only, and one block wide."""
    found = select(tiny, splits, depth=(0.34, 1.0), window=1)
    values = found.curves[0].values
    assert found.evidence["layers"] == [1 + int(values[2] > values[1])]


def test_the_seed_draws_the_texts(tiny: LanguageModel, splits: Splits) -> None:
    one, same, other = (select(tiny, splits, seed, texts=20) for seed in (3, 3, 4))
    assert one == same
    assert one.curves[0] != other.curves[0]


def test_both_readings_of_a_text_differ(tiny: LanguageModel, splits: Splits) -> None:
    assert select(tiny, splits, token="mean").curves[0] != select(tiny, splits).curves[0]


def test_the_end_token_of_an_answer_is_not_what_is_compared(tiny: LanguageModel, splits: Splits) -> None:
    """A question with its answer, and the same written out as a text, are the same activations."""
    encoder = tiny.encoder
    written = [Example(row.id, text=encoder.tokenizer.decode(encoder.example(row).ids[:-1])) for row in splits.forget]
    assert encoder.example(written[0]).ids == encoder.example(splits.forget[0]).ids[:-1]
    one, other = select(tiny, splits), select(tiny, Splits(tuple(written), splits.retain))
    assert one.curves[0].values == pytest.approx(other.curves[0].values, abs=1e-9)


def test_the_model_is_left_as_it_was(tiny: LanguageModel, splits: Splits) -> None:
    before = tiny.fingerprint()
    tiny.network.train()
    flags = [parameter.requires_grad for parameter in tiny.network.parameters()]
    select(tiny, splits, gradient_cosine=True)
    assert tiny.fingerprint() == before
    assert tiny.network.training
    assert [parameter.requires_grad for parameter in tiny.network.parameters()] == flags
    assert all(parameter.grad is None for parameter in tiny.network.parameters())


def test_gradient_cosine_against_a_plain_backward(tiny: LanguageModel, splits: Splits) -> None:
    """Rows one at a time through the network's own loss; a set against itself has cosine 1."""
    forget, retain = ([tiny.encoder.example(row) for row in rows[:4]] for rows in (splits.forget, splits.retain))
    name = "model.layers.1.mlp.down_proj.weight"
    weight = dict(tiny.network.named_parameters())[name]
    gradients = []
    for rows in (forget, retain):
        total = torch.zeros_like(weight)
        for row in rows:
            labels = torch.tensor([[-100] * row.num_prompt + list(row.labels)])
            loss = tiny.base(input_ids=torch.tensor([row.ids]), labels=labels).loss
            total += torch.autograd.grad(loss, weight)[0]
        gradients.append(total.flatten())
    expected = torch.nn.functional.cosine_similarity(*gradients, dim=0).item()
    assert gradient_cosines(tiny, forget, retain, [[name]]) == [pytest.approx(expected, abs=1e-5)]
    assert gradient_cosines(tiny, forget, forget, [[name]]) == [pytest.approx(1.0, abs=1e-6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"components": 4},
            r"localize\.components: 4 need 40 texts of each kind, got 25 .*set localize\.components = 2",
        ),
        (
            {"texts": 10, "components": 2},
            r"2 need 20 texts of each kind, got 10 \(forget 25, retain 30, localize\.texts",
        ),
        ({"components": 2, "modules": ("mlp.down_prj",)}, r"no module 'mlp\.down_prj' .*did you mean mlp\.down_proj"),
        ({"components": 2, "depth": (0.5, 0.2)}, r"localize\.depth"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tiny: LanguageModel, splits: Splits, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        MutualInformation(MutualInformation.Config(**options)).select(tiny, splits, 0)


def test_no_retain_rows(tiny: LanguageModel, splits: Splits) -> None:
    with pytest.raises(UserError, match=r"data\.retain has none"):
        select(tiny, Splits(splits.forget, ()))


def test_rows_that_are_all_alike_are_refused(tiny: LanguageModel, splits: Splits) -> None:
    """One text 25 times on either side spans no direction at all."""
    with pytest.raises(UserError, match="localize: block 0: the activations span fewer than 2 directions"):
        select(tiny, Splits(splits.retain[:1] * 25, splits.retain[:1] * 25))
