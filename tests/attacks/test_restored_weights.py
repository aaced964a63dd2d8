"""A model that an adversary trains: afterwards it is the very network that it was, whatever was done to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attack_ground import Rows, carried_out, ground
from peft import LoraConfig, get_peft_model

from expunge.attacks._weights import restored, tuned
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig as Adapter
from expunge.models.weight_backup import weight_backup

ONE_STEP: dict[str, Any] = {"kinds": ["benign"], "methods": ["full"], "rows": [2], "steps": 1, "looks": 1}


def adapted(model: LanguageModel) -> None:
    """Put a LoRA adapter that changes something around a model, on the head too."""
    model.network = get_peft_model(model.network, LoraConfig(r=2, target_modules=["down_proj", "lm_head"]))
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "lora_B" in name:
                weight += 0.1


def state(model: LanguageModel) -> dict[str, Any]:
    """All that can be seen from outside."""
    named = dict(model.network.named_parameters())
    return {
        "network": model.network,
        "modules": [(name, id(module), type(module)) for name, module in model.network.named_modules()],
        "parameters": {name: (id(one), one.dtype, one.requires_grad, one.grad) for name, one in named.items()},
        "values": {name: one.detach().clone() for name, one in named.items()},
        "tied": model.base.config.tie_word_embeddings,
        "widened": dict(model.widened),
        "merged": [list(one.merged_adapters) for one in model.network.modules() if hasattr(one, "merged_adapters")],
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name
    assert {**before, "values": None} == {**after, "values": None}


@pytest.mark.parametrize(
    ("around", "lora"),
    [("plain", None), ("adapter", None), ("half precision", None), ("plain", Adapter(r=2)), ("adapter", Adapter(r=2))],
)
def test_it_comes_back_to_the_bit(tiny: LanguageModel, examples: Rows, around: str, lora: Adapter | None) -> None:
    if around == "adapter":
        adapted(tiny)
    if around == "half precision":
        tiny.network.bfloat16()
    before = state(tiny)
    kept = weight_backup(tiny.base)
    for _ in range(2):  # the second time from the copies of the first
        with restored(tiny, kept, trained=lora is None):
            assert tiny.is_adapted is False
            assert list(tuned(tiny, examples["forget"][:2], 1, 1e-2, 2, lora, 0)) == [1]
            assert tiny.is_adapted is (lora is not None)
        assert_same(before, state(tiny))


def test_it_comes_back_after_an_error(tiny: LanguageModel, examples: Rows) -> None:
    before = state(tiny)
    with pytest.raises(ZeroDivisionError), restored(tiny, weight_backup(tiny.base), trained=True):
        _ = next(tuned(tiny, examples["forget"][:2], 2, 1e-2, 2, None, 0)) / 0
    assert_same(before, state(tiny))


def test_an_adapter_relearns_as_the_model_that_is_published(tiny: LanguageModel, examples: Rows) -> None:
    """The same answers as those of the merged model, whose weights are the same sums."""
    adapted(tiny)
    rows = examples["forget"][:2]
    around = carried_out(ground(tiny, examples, rows=rows), "relearning", **ONE_STEP)
    tiny.merge_adapter()
    merged = carried_out(ground(tiny, examples, rows=rows), "relearning", **ONE_STEP)
    assert {name: one.knowledge for name, one in around.items()} == {
        name: one.knowledge for name, one in merged.items()
    }
