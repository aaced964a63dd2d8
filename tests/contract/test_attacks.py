"""What holds for every attack: the model is untouched afterwards, and one seed gives one result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attack_ground import build, ground

from expunge.attacks._families import load_families
from expunge.attacks.base import Attack, Attempt
from expunge.core import plugins
from expunge.core.plugins import find, names
from expunge.core.toml import read_toml
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model

QUICK = read_toml(Path(__file__).parents[1] / "attacks" / "quick.toml")
"""Options that make an attack short on a tiny model, by name; one that is not named runs with its defaults."""


def _attempts(model: LanguageModel, name: str, examples: dict[str, tuple[Example, ...]], folder: Path) -> list[Attempt]:
    def load() -> LanguageModel:
        return load_model(ModelConfig(name=str(folder)))

    attack = build(name, **QUICK.get(name, {}))
    context = ground(model, examples, load, examples["forget"][:4], load_retrained=load)
    attack.check(context)
    with model.evaluating():
        return list(attack.run(context))


def _numbers(attempt: Attempt) -> tuple[Any, ...]:
    curve = [(point.at, tuple(point.knowledge)) for point in attempt.curve]
    return attempt.variant, tuple(attempt.knowledge), attempt.given, attempt.steps, curve


@pytest.mark.parametrize("name", names("attacks"))
def test_every_attack_is_described_and_its_defaults_are_valid(name: str) -> None:
    kind = find("attacks", name, Attack)  # type: ignore[type-abstract]
    assert kind.access in ("prompts", "logits", "weights")
    assert not kind.default or kind.access == "prompts"
    assert all(field.description for field in kind.Config.model_fields.values())
    assert kind(kind.Config()).name == name
    assert plugins.attribute("attacks", name, "tries") == kind.tries


def test_families_test_threats_that_prompting_declares() -> None:
    """Reports read the class alone, so that a threat tested only by a family must be declared there too."""
    tested = {threat for family in load_families("", ()).values() for threat in family.tries}
    assert tested == set(plugins.attribute("attacks", "prompting", "tries")) - {"questions in other languages"}


@pytest.mark.parametrize("name", names("attacks"))
def test_the_model_is_the_same_afterwards_and_a_seed_gives_one_result(
    name: str, tiny: LanguageModel, tiny_folder: Path, examples: dict[str, tuple[Example, ...]]
) -> None:
    before, network = tiny.fingerprint(), tiny.network
    flags = {key: parameter.requires_grad for key, parameter in network.named_parameters()}
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())
    first = _attempts(tiny, name, examples, tiny_folder)
    assert tiny.fingerprint() == before
    assert tiny.network is network
    assert flags == {key: parameter.requires_grad for key, parameter in network.named_parameters()}
    assert hooks == sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())

    assert first
    assert len({attempt.variant for attempt in first}) == len(first)
    for attempt in first:
        points = [attempt.knowledge, *(point.knowledge for point in attempt.curve)]
        assert all(len(values) == 4 for values in points)
        assert all(isinstance(value, str) or 0 <= value <= 1 for values in points for value in values)
        assert bool(attempt.along) == bool(attempt.curve)
    second = _attempts(tiny, name, examples, tiny_folder)
    assert list(map(_numbers, first)) == list(map(_numbers, second))
