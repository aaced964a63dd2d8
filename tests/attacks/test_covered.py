"""An attack that changes a part of the weights only has not tested the model, and says how large the part was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from attack_ground import build, carried_out, ground

from expunge.attacks.base import Attack, AttackContext, Attempt
from expunge.attacks.engine import attack
from expunge.core.schema import Frozen
from expunge.models.base import LanguageModel
from expunge.models.matrices import block_matrices, share_of_blocks
from expunge.reports.robustness import robustness_section


class Partial(Attack):
    """Changes the shares of the weights that its test says."""

    class Config(Frozen):
        """No options."""

    access = "weights"
    tries = ("quantization",)

    def __init__(self, *shares: float | None) -> None:
        super().__init__(self.Config())
        self.shares = shares

    def run(self, context: AttackContext) -> Iterator[Attempt]:
        """One attempt a share."""
        for place, share in enumerate(self.shares):
            yield Attempt(str(place), [1.0] * len(context.rows), covered=share)


@pytest.mark.parametrize(
    ("shares", "tries", "partly"),
    [
        ((0.11, 0.52), [], {"quantization": 0.52}),
        ((0.11, 0.9), ["quantization"], {}),
        ((None,), ["quantization"], {}),
    ],
)
def test_nine_tenths_of_the_weights_are_a_test(
    tiny: LanguageModel, examples: Any, shares: Any, tries: list[str], partly: dict[str, float]
) -> None:
    card = attack([Partial(*shares)], ground(tiny, examples, rows=examples["forget"][:2]))
    [found] = card.attacks
    assert (found.tries, found.partly) == (tries, partly)
    told = "\n".join(robustness_section(card).notes)
    assert ("52% (not a test)" in told) == bool(partly)
    assert ("in the decoder blocks" in told) == (shares != (None,))


def test_every_attack_on_weights_says_what_it_changed(tiny: LanguageModel, examples: Any) -> None:
    """A Llama's matrices are all its blocks but the norms: measured by each attack, not assumed."""
    context = ground(tiny, examples, rows=examples["forget"][:2])
    share = share_of_blocks(tiny, block_matrices(tiny))
    norms = 2 * 3 * tiny.base.config.hidden_size
    sizes = sum(weight.numel() for _, block in tiny.blocks() for weight in block.parameters())
    assert share == pytest.approx(1 - norms / sizes)
    once = {"kinds": ["benign"], "rows": [2], "steps": 1, "looks": 1, "lora": {"r": 2}}
    trained = carried_out(context, "relearning", **once)
    assert {name.rpartition(" ")[2]: one.covered for name, one in trained.items()} == {"full": 1.0, "lora": share}
    assert carried_out(context, "noise", sizes=[0.01], draws=1)[""].covered == share
    assert carried_out(context, "pruning", shares=[0.1])[""].covered == share
    assert {one.covered for one in carried_out(context, "quantization").values()} == {share}
    back = replace(context, load_original=lambda: tiny)
    assert carried_out(back, "interpolation", shares=[0.5])["halfway"].covered == 1
    assert build("sampling", samples=1).run(context).__next__().covered is None
