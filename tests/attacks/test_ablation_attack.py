"""Direction ablation: what a push or a refusal hides comes back without its direction; what never was does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from attack_ground import Rows, build, carried_out, ground, load, share

from expunge.attacks.base import AttackContext
from expunge.core.errors import UserError

LAYER = 1


def test_what_a_push_hides_comes_back_by_the_saved_direction_or_the_shift(tiny_folder: Path, examples: Rows) -> None:
    """The push on every output of block 1 is far longer than any state."""
    push = 200 * torch.nn.functional.normalize(torch.randn(96, generator=torch.Generator().manual_seed(1)), dim=0)
    model = load(tiny_folder)
    model.blocks()[LAYER][1].register_forward_hook(lambda _, __, output: output + push)
    tensors = {"direction": push / push.norm()}
    context = ground(model, examples, lambda: load(tiny_folder), tensors=tensors, steered=LAYER)
    assert sum(value == 1 for value in context.unlearned_plain) <= 1
    found = carried_out(context, "direction_ablation")
    assert share(found["saved"]) >= 0.6
    assert share(found["shift"]) >= 0.6
    elsewhere = carried_out(context, "direction_ablation", layer=0)
    assert share(elsewhere["saved"]) <= 0.2


def test_a_refusal_goes_with_what_tells_its_prompts_from_others(refusing: AttackContext) -> None:
    assert share(carried_out(refusing, "direction_ablation")["contrast"]) >= 0.5


def test_there_is_nothing_behind_a_model_that_never_knew(never: AttackContext) -> None:
    found = carried_out(never, "direction_ablation")
    assert list(found) == ["shift", "contrast"]
    assert all(share(attempt) == 0 for attempt in found.values())


def test_states_that_did_not_move_have_no_shift(tiny_folder: Path, examples: Rows) -> None:
    context = ground(load(tiny_folder), examples, lambda: load(tiny_folder), rows=examples["forget"][:2])
    assert list(carried_out(context, "direction_ablation")) == ["contrast"]


def test_a_layer_that_is_not_there_is_refused(tiny_folder: Path, examples: Rows) -> None:
    context = ground(load(tiny_folder), examples, rows=examples["forget"][:1])
    with pytest.raises(UserError, match=r"attacks\.direction_ablation\.layer: no layer 3; .*layers 0 to 2"):
        build("direction_ablation", layer=3).check(context)
