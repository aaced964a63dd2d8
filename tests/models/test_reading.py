"""Weights in the precision of the arithmetic while nothing moves."""

from __future__ import annotations

import pytest
import torch

from expunge.models import base
from expunge.models.base import LanguageModel


def test_reading_changes_no_logit_and_gives_every_weight_back(random_model: LanguageModel) -> None:
    """Autocast rounds a weight in each pass to what it is here rounded to once; a tied matrix stays one for lookup."""
    random_model.precision = "bfloat16"
    ids = torch.arange(1, 9)[None]
    before = dict(random_model.network.named_parameters())
    with torch.inference_mode(), random_model.evaluating():
        with random_model.autocast():
            expected = random_model.base(input_ids=ids).logits
        with random_model.reading(), random_model.autocast():
            found = random_model.base(input_ids=ids).logits
            types = {weight.dtype for weight in random_model.network.parameters()}
    assert torch.equal(found, expected)
    assert torch.bfloat16 in types
    after = dict(random_model.network.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is weight for name, weight in before.items())


def test_where_copies_do_not_fit_there_are_none(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.precision = "bfloat16"
    size = 2 * sum(weight.numel() for name, weight in tiny.base.named_parameters() if "proj" in name or "embed" in name)
    for room, dtypes in ((size, {torch.bfloat16, torch.float32}), (size - 1, {torch.float32})):
        monkeypatch.setattr(base, "free_memory", lambda _, room=room: 2 * room)
        with tiny.reading():
            assert {weight.dtype for weight in tiny.network.parameters()} == dtypes


def test_reading_in_float32_converts_nothing(random_model: LanguageModel) -> None:
    """There is nothing to round."""
    with random_model.reading():
        assert {weight.dtype for weight in random_model.network.parameters()} == {torch.float32}
