"""The worst case: whoever attacks a model can also just ask it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from attack_ground import ground, load

from expunge.attacks.base import GIVEN, Attack, AttackContext, Attempt, Value
from expunge.attacks.engine import attack
from expunge.core.schema import Frozen
from expunge.models.base import LanguageModel
from expunge.reports.robustness import robustness_section, worst_case_clause


class Scripted(Attack):
    """Gets from each row what its test says."""

    class Config(Frozen):
        """No options."""

    access = "logits"

    def __init__(self, **variants: list[Value]) -> None:
        super().__init__(self.Config())
        self.variants = variants

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt a variant."""
        for name, values in self.variants.items():
            yield Attempt("" if name == "only" else name, values)


def on(model: LanguageModel, examples: Any, plain: list[Value]) -> AttackContext:
    """Four rows of which the model says these when asked plainly."""
    return replace(ground(model, examples, rows=examples["forget"][:4]), unlearned_plain=plain)


def test_asking_plainly_belongs_to_every_worst_case(tiny: LanguageModel, examples: Any) -> None:
    """Plain 3 of 4; one variant gets row 4 alone: worst 4 of 4, and the variant keeps its own number."""
    context = on(tiny, examples, [1.0, 1.0, 1.0, 0.0])
    (found,) = attack([Scripted(only=[0.0, 0.0, 0.0, 1.0])], context).attacks
    assert found.variants[0].knowledge.value == 0.25
    assert found.worst is not None
    assert found.worst.knowledge.value == 1.0


def test_a_single_variant_that_beats_asking_is_its_own_worst_case(tiny: LanguageModel, examples: Any) -> None:
    """And of several, the best of each row."""
    context = on(tiny, examples, [1.0, 0.0, 0.0, 0.0])
    assert attack([Scripted(only=[1.0, 1.0, 0.0, 0.0])], context).attacks[0].worst is None
    two = attack([Scripted(a=[0.0, 1.0, 0.0, 0.0], b=[0.0, 0.0, 1.0, 0.0])], context).attacks[0].worst
    assert two is not None
    assert two.knowledge.value == 0.75


def test_the_headline_never_says_less_than_asking_plainly(tiny: LanguageModel, examples: Any) -> None:
    """A row that the adversary was given has no number: 1 of 3 at worst, after 2 of 4 when asked plainly."""
    context = on(tiny, examples, [1.0, 1.0, 0.0, 0.0])
    card = attack([Scripted(only=[GIVEN, 0.0, 0.0, 0.0])], context)
    assert card.attacks[0].worst is not None
    assert card.attacks[0].worst.knowledge.n == 3
    assert worst_case_clause(card) == "no more with its logits (test worst, n=3) than asking plainly"
    assert "at worst no more" in robustness_section(card).sentence


def test_a_control_is_asked_plainly_too(tiny: LanguageModel, examples: Any, tiny_folder: Any) -> None:
    """The control knows all four facts when asked: nothing is drawn out beyond it."""
    context = on(tiny, examples, [1.0, 0.0, 0.0, 0.0])
    nothing = Scripted(only=[0.0] * 4)
    (found,) = attack([nothing], context, controls={"retrained": lambda: load(tiny_folder)}).attacks
    assert found.worst is not None
    assert found.worst.controls["retrained"].value == 1.0
    assert found.worst.excess is not None
    assert found.worst.excess.value == -0.75


def test_warnings_stand_before_the_notes(tiny: LanguageModel, examples: Any) -> None:
    """In the page and in the terminal."""
    card = attack([Scripted(only=[1.0] * 4)], on(tiny, examples, [0.0] * 4))
    assert robustness_section(card, ["Rows repeat."]).notes[0] == "Warning: Rows repeat."
